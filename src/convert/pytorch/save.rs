//! Writes files as `torch.save` does since PyTorch 1.6: a zip archive of a pickle (protocol 2) and of the tensors'
//! bytes, each in a file of its own, not compressed. `torch.load` takes them with `weights_only`.

use super::opcode::Opcode;
use std::io::{self, Seek, Write};
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

/// The folder in the archive; PyTorch takes the file's name for it, and reads any.
const FOLDER: &str = "archive";
/// PyTorch maps tensors into memory from multiples of so many bytes.
const ALIGNMENT: u16 = 64;

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    Truth(bool),
    /// Below 2³¹.
    Whole(i32),
    Number(f64),
    Text(String),
    Dict(Vec<(String, Object)>),
    /// A tensor of f32 that lies row by row.
    Tensor {
        /// Which of the file's tensors: several names may have one.
        index: usize,
        shape: Vec<usize>,
    },
}

/// Writes `root` and the tensors, which `read` gives by their index.
///
/// # Errors
/// What `read` says, or where the file cannot be written.
pub fn save<E: From<io::Error>>(
    file: impl Write + Seek,
    root: &Object,
    tensors: usize,
    mut read: impl FnMut(usize) -> Result<Vec<f32>, E>,
) -> Result<(), E> {
    let mut archive = ZipWriter::new(file);
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(ALIGNMENT);
    let start = |archive: &mut ZipWriter<_>, name: &str, bytes: usize| {
        let large = bytes as u64 >= u64::from(u32::MAX);
        let path = format!("{FOLDER}/{name}");
        archive
            .start_file(path, options.large_file(large))
            .map_err(io::Error::from)
    };
    let mut pickle = vec![Opcode::Proto as u8, 2];
    write_object(&mut pickle, root)?;
    pickle.push(Opcode::Stop as u8);
    start(&mut archive, "data.pkl", pickle.len())?;
    archive.write_all(&pickle)?;
    start(&mut archive, "byteorder", 6)?;
    archive.write_all(b"little")?;
    for index in 0..tensors {
        let values = read(index)?;
        start(&mut archive, &format!("data/{index}"), 4 * values.len())?;
        for piece in values.chunks(1 << 16) {
            let bytes: Vec<u8> = piece.iter().flat_map(|value| value.to_le_bytes()).collect();
            archive.write_all(&bytes)?;
        }
    }
    // The version of the format.
    start(&mut archive, "version", 2)?;
    archive.write_all(b"3\n")?;
    archive.finish().map_err(io::Error::from)?.flush()?;
    Ok(())
}

fn write_object(pickle: &mut Vec<u8>, object: &Object) -> io::Result<()> {
    match object {
        Object::Truth(true) => pickle.push(Opcode::NewTrue as u8),
        Object::Truth(false) => pickle.push(Opcode::NewFalse as u8),
        Object::Whole(number) => write_whole(pickle, *number),
        Object::Number(number) => {
            pickle.push(Opcode::BinFloat as u8);
            pickle.extend(number.to_be_bytes());
        }
        Object::Text(text) => write_text(pickle, text)?,
        Object::Dict(entries) => {
            pickle.extend([Opcode::EmptyDict as u8, Opcode::Mark as u8]);
            for (key, value) in entries {
                write_text(pickle, key)?;
                write_object(pickle, value)?;
            }
            pickle.push(Opcode::SetItems as u8);
        }
        Object::Tensor { index, shape } => write_tensor(pickle, *index, shape)?,
    }
    Ok(())
}

fn write_whole(pickle: &mut Vec<u8>, number: i32) {
    pickle.push(Opcode::BinInt as u8);
    pickle.extend(number.to_le_bytes());
}

fn write_size(pickle: &mut Vec<u8>, size: usize) -> io::Result<()> {
    let number = i32::try_from(size)
        .map_err(|_| io::Error::other("a tensor is too large for the format"))?;
    write_whole(pickle, number);
    Ok(())
}

fn write_text(pickle: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    pickle.push(Opcode::BinUnicode as u8);
    pickle.extend(length.to_le_bytes());
    pickle.extend(text.as_bytes());
    Ok(())
}

fn write_global(pickle: &mut Vec<u8>, module: &str, name: &str) {
    pickle.push(Opcode::Global as u8);
    pickle.extend(format!("{module}\n{name}\n").as_bytes());
}

/// A call of `torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`.
fn write_tensor(pickle: &mut Vec<u8>, index: usize, shape: &[usize]) -> io::Result<()> {
    write_global(pickle, "torch._utils", "_rebuild_tensor_v2");
    pickle.push(Opcode::Mark as u8);

    // The storage: its type, name, device and number of elements.
    pickle.push(Opcode::Mark as u8);
    write_text(pickle, "storage")?;
    write_global(pickle, "torch", "FloatStorage");
    write_text(pickle, &index.to_string())?;
    write_text(pickle, "cpu")?;
    write_size(pickle, shape.iter().product())?;
    pickle.extend([Opcode::Tuple as u8, Opcode::BinPersId as u8]);

    write_whole(pickle, 0);
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    for sizes in [shape, &strides] {
        pickle.push(Opcode::Mark as u8);
        for &size in sizes {
            write_size(pickle, size)?;
        }
        pickle.push(Opcode::Tuple as u8);
    }
    pickle.push(Opcode::NewFalse as u8);
    write_global(pickle, "collections", "OrderedDict");
    pickle.extend([Opcode::EmptyTuple as u8, Opcode::Reduce as u8]);

    pickle.extend([Opcode::Tuple as u8, Opcode::Reduce as u8]);
    Ok(())
}
