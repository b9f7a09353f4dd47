//! A column that is being read: its values as texts, whatever their type is.

use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use ::parquet::errors::{ParquetError, Result};

/// A column of texts, or of numbers, which are read as JSON writes them.
pub(super) enum OpenColumn {
    Texts(ColumnReaderImpl<ByteArrayType>),
    Bools(ColumnReaderImpl<BoolType>),
    Int32s(ColumnReaderImpl<Int32Type>),
    Int64s(ColumnReaderImpl<Int64Type>),
    Floats(ColumnReaderImpl<FloatType>),
    Doubles(ColumnReaderImpl<DoubleType>),
}

impl OpenColumn {
    /// # Errors
    /// Where its values are neither texts nor numbers.
    pub(super) fn new(reader: ColumnReader) -> Result<OpenColumn> {
        Ok(match reader {
            ColumnReader::ByteArrayColumnReader(column) => OpenColumn::Texts(column),
            ColumnReader::BoolColumnReader(column) => OpenColumn::Bools(column),
            ColumnReader::Int32ColumnReader(column) => OpenColumn::Int32s(column),
            ColumnReader::Int64ColumnReader(column) => OpenColumn::Int64s(column),
            ColumnReader::FloatColumnReader(column) => OpenColumn::Floats(column),
            ColumnReader::DoubleColumnReader(column) => OpenColumn::Doubles(column),
            ColumnReader::Int96ColumnReader(_) | ColumnReader::FixedLenByteArrayColumnReader(_) => {
                return Err(ParquetError::General(
                    "a column is neither of texts nor of numbers".to_owned(),
                ));
            }
        })
    }

    /// As [`ColumnReaderImpl::read_records`]; the number of records.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub(super) fn read(
        &mut self,
        records: usize,
        levels: &mut Vec<i16>,
        starts: Option<&mut Vec<i16>>,
        values: &mut Vec<ByteArray>,
    ) -> Result<usize> {
        match self {
            OpenColumn::Texts(column) => {
                let (records, ..) = column.read_records(records, Some(levels), starts, values)?;
                Ok(records)
            }
            OpenColumn::Bools(column) => numbers(column, records, levels, starts, values),
            OpenColumn::Int32s(column) => numbers(column, records, levels, starts, values),
            OpenColumn::Int64s(column) => numbers(column, records, levels, starts, values),
            OpenColumn::Floats(column) => numbers(column, records, levels, starts, values),
            OpenColumn::Doubles(column) => numbers(column, records, levels, starts, values),
        }
    }

    /// Passes over so many records. Returns how many there were.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub(super) fn skip(&mut self, records: usize) -> Result<usize> {
        match self {
            OpenColumn::Texts(column) => column.skip_records(records),
            OpenColumn::Bools(column) => column.skip_records(records),
            OpenColumn::Int32s(column) => column.skip_records(records),
            OpenColumn::Int64s(column) => column.skip_records(records),
            OpenColumn::Floats(column) => column.skip_records(records),
            OpenColumn::Doubles(column) => column.skip_records(records),
        }
    }
}

fn numbers<T: DataType<T: ToString>>(
    column: &mut ColumnReaderImpl<T>,
    records: usize,
    levels: &mut Vec<i16>,
    starts: Option<&mut Vec<i16>>,
    values: &mut Vec<ByteArray>,
) -> Result<usize> {
    let mut found = Vec::new();
    let (records, ..) = column.read_records(records, Some(levels), starts, &mut found)?;
    let texts = found.iter().map(|number| number.to_string().into_bytes());
    values.extend(texts.map(ByteArray::from));
    Ok(records)
}
