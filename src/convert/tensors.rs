//! Tensors in files, read when they are needed and only the rows that are.

use super::ConvertError;
use half::{bf16, f16};
use mpnet_runtime::lfs::refuse_pointer;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Element types that files hold; the first four are converted to f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    F32,
    F64,
    F16,
    BF16,
    /// Integers and booleans, which no parameter is made of, with their size in bytes.
    Other(usize),
}

impl Element {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F64 => 8,
            Element::F16 | Element::BF16 => 2,
            Element::Other(size) => size,
        }
    }

    /// Whether it can be read as f32.
    pub fn is_float(self) -> bool {
        match self {
            Element::F32 | Element::F64 | Element::F16 | Element::BF16 => true,
            Element::Other(_) => false,
        }
    }

    /// Little-endian `bytes` as f32.
    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|b| f(*b)).collect()
        }
        match self {
            Element::F32 => each(bytes, f32::from_le_bytes),
            Element::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Element::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Element::BF16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Element::Other(_) => Vec::new(),
        }
    }
}

/// An open file that several tensors are read from.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: Mutex<File>,
    len: u64,
}

impl TensorFile {
    /// Opens `path`.
    ///
    /// # Errors
    /// Where that fails.
    pub fn open(path: &Path) -> Result<Arc<TensorFile>, ConvertError> {
        refuse_pointer(path)?;
        let file = File::open(path).map_err(ConvertError::io("open", path))?;
        let len = file
            .metadata()
            .map_err(ConvertError::io("read", path))?
            .len();
        Ok(Arc::new(TensorFile {
            path: path.to_owned(),
            file: Mutex::new(file),
            len,
        }))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes, counted when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes `start..start + len`.
    ///
    /// # Errors
    /// Where the file has no such bytes.
    pub fn read(&self, start: u64, len: usize) -> Result<Vec<u8>, ConvertError> {
        if start
            .checked_add(len as u64)
            .is_none_or(|end| end > self.len)
        {
            return Err(ConvertError::damaged(
                &self.path,
                format!(
                    "it has {} bytes, and something in it is to end after them",
                    self.len
                ),
            ));
        }
        let mut bytes = vec![0; len];
        let mut file = self
            .file
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(ConvertError::io("read", &self.path))?;
        Ok(bytes)
    }
}

/// A tensor in a file, in row-major order unless it has strides.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub file: Arc<TensorFile>,
    /// Of the first element, in bytes.
    pub offset: u64,
    pub element: Element,
    pub shape: Vec<usize>,
    /// Elements from one index to the next on each axis, where the order is another.
    pub strides: Option<Vec<usize>>,
}

impl Tensor {
    /// Number of elements of one index of the first axis.
    fn row(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Number of indices of the first axis; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The elements of `rows` of the first axis, in row-major order.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn read(&self, rows: Range<usize>) -> Result<Vec<f32>, ConvertError> {
        let size = self.element.size();
        match &self.strides {
            None => {
                let start = self.offset + (rows.start * self.row() * size) as u64;
                let bytes = self.file.read(start, rows.len() * self.row() * size)?;
                Ok(self.element.decode(&bytes))
            }
            Some(strides) => {
                // What lies between the first and the last element: never more than the storage.
                let mut shape = self.shape.clone();
                if let Some(first) = shape.first_mut() {
                    *first = rows.len();
                }
                if shape.contains(&0) {
                    return Ok(Vec::new());
                }
                let skip = rows.start * strides.first().copied().unwrap_or(0);
                let span: usize = shape.iter().zip(strides).map(|(n, s)| (n - 1) * s).sum();
                let bytes = self
                    .file
                    .read(self.offset + (skip * size) as u64, (span + 1) * size)?;
                let flat = self.element.decode(&bytes);
                Ok(gather(&flat, &shape, strides))
            }
        }
    }
}

/// The elements of a strided view in row-major order.
fn gather(flat: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let mut index = vec![0usize; shape.len()];
    let mut at = 0;
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        out.push(flat[at]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_and_order_is_read_by_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        // A byte before, then 2 × 3 numbers.
        let write = |bytes: &[u8]| {
            std::fs::write(&path, [&[9], bytes].concat()).unwrap();
            TensorFile::open(&path).unwrap()
        };
        let numbers = [1.0f32, -2.0, 3.5, 4.0, 0.25, 6.0];
        let encoded: [(Element, Vec<u8>); 4] = [
            (
                Element::F32,
                numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            (
                Element::F64,
                numbers
                    .iter()
                    .flat_map(|x| f64::from(*x).to_le_bytes())
                    .collect(),
            ),
            (
                Element::F16,
                numbers
                    .iter()
                    .flat_map(|x| f16::from_f32(*x).to_le_bytes())
                    .collect(),
            ),
            (
                Element::BF16,
                numbers
                    .iter()
                    .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
                    .collect(),
            ),
        ];
        for (element, bytes) in encoded {
            let tensor = |shape: &[usize], strides: Option<Vec<usize>>| Tensor {
                file: write(&bytes),
                offset: 1,
                element,
                shape: shape.to_vec(),
                strides,
            };
            let plain = tensor(&[2, 3], None);
            assert_eq!(plain.read(0..2).unwrap(), numbers);
            assert_eq!(plain.read(1..2).unwrap(), numbers[3..]);
            let transposed = tensor(&[3, 2], Some(vec![1, 3]));
            assert_eq!(
                transposed.read(0..3).unwrap(),
                [1.0, 4.0, -2.0, 0.25, 3.5, 6.0]
            );
            assert_eq!(transposed.read(1..2).unwrap(), [-2.0, 0.25]);
            let beyond = tensor(&[3, 3], None).read(0..3).unwrap_err();
            assert!(
                beyond.to_string().contains("is to end after them"),
                "{beyond}"
            );
        }
    }
}
