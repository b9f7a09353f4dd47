//! Pages in Hadoop's LZ4 frames, as Spark writes them, several to a page: parquet 60.1 takes the last
//! frame of a page for damaged where it is shorter than the one before it.

use std::sync::Arc;

use ::parquet::basic::Compression as Codec;
use ::parquet::column::page::{Page, PageMetadata, PageReader};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::metadata::ColumnChunkMetaData;
use ::parquet::file::serialized_reader::SerializedPageReader;
use bytes::Bytes;

use super::Chunks;

/// Bytes before a frame: its length decompressed, and compressed, with the highest byte first.
const PREFIX: usize = 8;

/// The pages of a column chunk, where they are in such frames.
///
/// # Errors
/// Where a page can't be read.
pub fn pages(
    chunks: &Arc<Chunks>,
    chunk: &ColumnChunkMetaData,
    rows: usize,
) -> ParquetResult<Option<Box<dyn PageReader>>> {
    // As if they were not compressed, the reader hands pages out as they are.
    let as_stored = chunk.clone().into_builder();
    let as_stored = as_stored.set_compression(Codec::UNCOMPRESSED).build()?;
    let open = || SerializedPageReader::new(Arc::clone(chunks), &as_stored, rows, None);
    let first = open()?.get_next_page()?;
    let framed = first.is_none_or(|page| unframed(page).is_ok());
    Ok(match framed {
        true => Some(Box::new(Framed(open()?))),
        false => None,
    })
}

/// Pages that are decompressed here.
struct Framed(SerializedPageReader<Chunks>);

impl Iterator for Framed {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<ParquetResult<Page>> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Framed {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        self.0.get_next_page()?.map(unframed).transpose()
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.0.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.0.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> ParquetResult<Option<Page>> {
        self.0.take_deferred_dictionary()?.map(unframed).transpose()
    }

    fn at_record_boundary(&mut self) -> ParquetResult<bool> {
        self.0.at_record_boundary()
    }
}

/// The page with its values decompressed.
fn unframed(mut page: Page) -> ParquetResult<Page> {
    match &mut page {
        Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => {
            *buf = decompress(buf, 0)?;
        }
        Page::DataPageV2 {
            buf,
            def_levels_byte_len,
            rep_levels_byte_len,
            is_compressed,
            ..
        } => {
            if *is_compressed {
                *buf = decompress(buf, (*def_levels_byte_len + *rep_levels_byte_len) as usize)?;
                *is_compressed = false;
            }
        }
    }
    Ok(page)
}

/// `stored` with all after its first `plain` bytes decompressed, frame by frame.
fn decompress(stored: &Bytes, plain: usize) -> ParquetResult<Bytes> {
    let wrong = |what: &str| ParquetError::General(format!("a page in LZ4 frames {what}"));
    let Some((plain, mut rest)) = stored.split_at_checked(plain) else {
        return Err(wrong("is shorter than its levels"));
    };
    let mut whole = plain.to_vec();
    while !rest.is_empty() {
        let number = |at: usize| {
            let bytes = rest.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_be_bytes(bytes) as usize)
        };
        let (Some(long), Some(short)) = (number(0), number(4)) else {
            return Err(wrong("breaks off in a frame's length"));
        };
        let Some(frame) = rest.get(PREFIX..PREFIX + short) else {
            return Err(wrong("breaks off in a frame"));
        };
        // LZ4 makes at most 255 bytes of one.
        if long > short.saturating_mul(255) {
            return Err(wrong("has a frame that says it is longer than it can be"));
        }
        let frame = lz4_flex::block::decompress(frame, long)
            .map_err(|e| ParquetError::External(Box::new(e)))?;
        if frame.len() != long {
            return Err(wrong("has a frame of another length than it says"));
        }
        whole.extend_from_slice(&frame);
        rest = &rest[PREFIX + short..];
    }
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &[u8]) -> Vec<u8> {
        let short = lz4_flex::block::compress(text);
        let lengths = [text.len() as u32, short.len() as u32].map(u32::to_be_bytes);
        [&lengths.concat(), &short[..]].concat()
    }

    #[test]
    fn frames_of_any_lengths_follow_each_other() {
        let long: Vec<u8> = (0..5000u32)
            .flat_map(|i| (i * 7919).to_le_bytes())
            .collect();
        let stored = [
            &b"lv"[..],
            &frame(&long),
            &frame(b"a short one"),
            &frame(&long),
        ]
        .concat();
        let expected = [&b"lv"[..], &long, b"a short one", &long].concat();
        assert_eq!(decompress(&stored.clone().into(), 2).unwrap(), expected);
        for cut in [1, 5, stored.len() - 1] {
            assert!(
                decompress(&stored[..cut].to_vec().into(), 2).is_err(),
                "{cut}"
            );
        }
        assert_eq!(decompress(&Bytes::new(), 0).unwrap(), Bytes::new());
    }
}
