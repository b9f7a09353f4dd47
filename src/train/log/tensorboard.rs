//! TensorBoard event files: TFRecords of the few protobuf messages that scalars take, written by hand.

use crate::staging::Growing;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// A file of events.
#[derive(Debug)]
pub struct EventFile {
    file: Growing,
}

impl EventFile {
    /// Starts a file in `dir`; events of a run before it that are of `resumed` or later steps are
    /// taken back.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn create(dir: &Path, time: f64, resumed: Option<u64>) -> io::Result<EventFile> {
        fs::create_dir_all(dir)?;
        // TensorBoard goes through the files in the order of their names, and looks for 'tfevents'.
        let name = format!(
            "events.out.tfevents.{:017.6}.{}.mpnet",
            time,
            std::process::id()
        );
        let file = File::options()
            .append(true)
            .create_new(true)
            .open(dir.join(name))?;
        let mut events = EventFile {
            file: Growing::new(file)?,
        };
        let mut event = Message::default();
        event.double(1, time);
        event.bytes(3, b"brain.Event:2");
        events.write(&event)?;
        if let Some(step) = resumed {
            // SessionLog with status START.
            let mut session = Message::default();
            session.varint(1, 1);
            let mut event = Message::default();
            event.double(1, time);
            event.varint(2, step);
            event.bytes(7, &session.0);
            events.write(&event)?;
        }
        Ok(events)
    }

    /// Writes scalars of one step.
    ///
    /// # Errors
    /// Where the disk refuses them.
    pub fn scalars(&mut self, time: f64, step: u64, scalars: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = Message::default();
        for (tag, value) in scalars {
            let mut one = Message::default();
            one.bytes(1, tag.as_bytes());
            one.float(2, *value as f32);
            summary.bytes(1, &one.0);
        }
        let mut event = Message::default();
        event.double(1, time);
        event.varint(2, step);
        event.bytes(5, &summary.0);
        self.write(&event)
    }

    /// One record: length, its checksum, data, its checksum; in one call, so that a killed run leaves
    /// whole records.
    fn write(&mut self, event: &Message) -> io::Result<()> {
        let length = (event.0.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.0.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&event.0);
        record.extend(masked_crc(&event.0).to_le_bytes());
        self.file.append(&record)
    }
}

/// A protobuf message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.raw_varint(field << 3);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.raw_varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.raw_varint(field << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.raw_varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }
}

/// CRC-32C as TFRecord has it, rotated and offset.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, B.4.
    #[test]
    fn the_checksum_is_that_of_iscsi() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_file_is_whole_records() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path(), 1.5, Some(3)).unwrap();
        events.scalars(2.5, 300, &[("loss", 0.5)]).unwrap();
        let path = fs::read_dir(folder.path()).unwrap().next().unwrap();
        let bytes = fs::read(path.unwrap().path()).unwrap();
        let (mut rest, mut records) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let data = &rest[12..12 + length];
            let sum = u32::from_le_bytes(rest[12 + length..16 + length].try_into().unwrap());
            assert_eq!(sum, masked_crc(data));
            records.push(data.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 3);
        // wall time 2.5, step 300, summary { value { tag "loss", simple value 0.5 } }
        let mut expected = vec![0x09, 0, 0, 0, 0, 0, 0, 0x04, 0x40, 0x10, 0xac, 0x02];
        expected.extend([0x2a, 13, 0x0a, 11, 0x0a, 4, b'l', b'o', b's', b's', 0x15]);
        expected.extend(0.5_f32.to_le_bytes());
        assert_eq!(records[2], expected);
    }
}
