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
    use ::parquet::data_type::{ByteArray, ByteArrayType};
    use ::parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
    use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;

    use super::super::Parquet;
    use super::*;
    use crate::data::source::{Compression, Fields, Position, Rows};

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

    /// A file of one page in two frames, the last the shorter, as Spark writes pages of more than 256 KiB.
    fn of_two_frames(texts: [&[u8]; 2]) -> Vec<u8> {
        let schema =
            Arc::new(parse_message_type("message m { required binary text (STRING); }").unwrap());
        let properties = WriterProperties::builder()
            .set_compression(Codec::LZ4)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None);
        let mut ordinary = Vec::new();
        let properties = Arc::new(properties.build());
        let mut writer = SerializedFileWriter::new(&mut ordinary, schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values = texts.map(|text| ByteArray::from(text.to_vec()));
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, None, None)
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();

        // The page again, in other frames, behind its header in Thrift's compact protocol: a page of data, its lengths,
        // two values, plain, levels that there are none of.
        let value = |text: &[u8]| [&(text.len() as u32).to_le_bytes()[..], text].concat();
        let page = texts.map(value).concat();
        let (first, last) = page.split_at(page.len() - 100);
        let frames = [frame(first), frame(last)].concat();
        let number = |mut number: usize| {
            number *= 2;
            let mut bytes = Vec::new();
            while number > 127 {
                bytes.push(number as u8 | 128);
                number >>= 7;
            }
            bytes.push(number as u8);
            bytes
        };
        let header = [
            &[0x15, 0, 0x15][..],
            &number(page.len()),
            &[0x15],
            &number(frames.len()),
            &[0x2c, 0x15],
            &number(texts.len()),
            &[0x15, 0, 0x15, 6, 0x15, 6, 0, 0],
        ]
        .concat();
        let metadata = ParquetMetaDataReader::new()
            .parse_and_finish(&Bytes::from(ordinary))
            .unwrap();
        let mut metadata = metadata.into_builder();
        let group = metadata.take_row_groups().remove(0);
        let column = group.column(0).clone().into_builder();
        let column = column
            .set_data_page_offset(4)
            .set_total_compressed_size((header.len() + frames.len()) as i64)
            .set_offset_index_offset(None)
            .set_offset_index_length(None);
        let group = group
            .into_builder()
            .set_column_metadata(vec![column.build().unwrap()]);
        let metadata = metadata
            .set_row_groups(vec![group.build().unwrap()])
            .build();
        let mut file = [&b"PAR1"[..], &header, &frames].concat();
        ParquetMetaDataWriter::new(&mut file, &metadata)
            .finish()
            .unwrap();
        file
    }

    #[test]
    fn a_page_in_several_frames_is_read() {
        // Numbers, which do not shrink to less than the last frame.
        let numbers = (0..900u32).map(|i| format!("{} ", i * 7919 % 104_729));
        let long = numbers.collect::<String>().into_bytes();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        std::fs::write(&path, of_two_frames([&long, b"a short one"])).unwrap();
        let fields = Fields::default();
        let mut rows =
            Parquet::file(&path, Compression::None, &fields, Position::default()).unwrap();
        let long = String::from_utf8(long).unwrap();
        assert_eq!(rows.next().unwrap(), Some(long));
        assert_eq!(rows.next().unwrap().as_deref(), Some("a short one"));
        assert_eq!(rows.next().unwrap(), None);
    }
}
