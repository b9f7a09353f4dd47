//! Collectives on values of the host, without anything unsafe for the caller.

use sha2::{Digest as _, Sha256};

use super::{Buffer, Collective, CollectiveError, Number, Reduction, Result, Whole};

impl dyn Collective + '_ {
    /// Adds up each value over the ranks.
    ///
    /// # Errors
    /// The library fails, or the ranks' slices are not equally long and it notices.
    pub fn sum<T: Number>(&self, values: &mut [T]) -> Result<()> {
        // SAFETY: the slice is borrowed alone for the call.
        unsafe { self.all_reduce(&[Buffer::of(values)], Reduction::Sum) }
    }

    /// The largest of each value over the ranks.
    ///
    /// # Errors
    /// As for `sum`.
    pub fn max<T: Whole>(&self, values: &mut [T]) -> Result<()> {
        // SAFETY: the slice is borrowed alone for the call.
        unsafe { self.all_reduce(&[Buffer::of(values)], Reduction::Max) }
    }

    /// The values of every rank, one rank's behind another's.
    ///
    /// # Errors
    /// As for `sum`.
    pub fn gather<T: Number>(&self, values: &[T]) -> Result<Vec<T>> {
        let mut all = vec![T::default(); values.len() * self.world_size()];
        all[self.rank() * values.len()..][..values.len()].copy_from_slice(values);
        // SAFETY: the vector is this function's own.
        unsafe { self.all_gather(&[Buffer::of(&mut all)]) }?;
        Ok(all)
    }

    /// The bytes of the rank `root`, of whatever length.
    ///
    /// # Errors
    /// As for `sum`.
    pub fn broadcast_bytes(&self, bytes: &mut Vec<u8>, root: usize) -> Result<()> {
        let mut length = [bytes.len() as u64];
        // SAFETY: the array is this function's own.
        unsafe { self.broadcast(Buffer::of(&mut length), root) }?;
        let length = usize::try_from(length[0]).map_err(|_| CollectiveError::TooLong {
            operation: "broadcast",
            elements: usize::MAX,
        })?;
        bytes.resize(length, 0);
        // SAFETY: the vector is borrowed alone for the call.
        unsafe { self.broadcast(Buffer::of(bytes), root) }
    }

    /// A text of every rank, by rank.
    ///
    /// # Errors
    /// As for `sum`.
    pub fn gather_strings(&self, text: &str) -> Result<Vec<String>> {
        let lengths = self.gather(&[text.len() as u64])?;
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        if longest == 0 {
            return Ok(vec![String::new(); lengths.len()]);
        }
        let mut padded = text.as_bytes().to_vec();
        padded.resize(longest, 0);
        let all = self.gather(&padded)?;
        let texts = all.chunks_exact(longest).zip(lengths);
        Ok(texts
            .map(|(text, length)| String::from_utf8_lossy(&text[..length as usize]).into_owned())
            .collect())
    }

    /// The ranks whose bytes, of whatever length, are not those of rank 0.
    ///
    /// # Errors
    /// As for `sum`.
    pub fn differing(&self, bytes: &[u8]) -> Result<Vec<usize>> {
        let digest = Sha256::digest(bytes);
        let all = self.gather::<u8>(&digest)?;
        let digests: Vec<&[u8]> = all.chunks_exact(digest.len()).collect();
        let differs = |rank: &usize| digests.first() != digests.get(*rank);
        Ok((0..digests.len()).filter(differs).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::collective::solo;

    #[test]
    fn one_rank_keeps_its_values() {
        let solo = solo();
        let mut values = [1.5, f64::NAN];
        solo.sum(&mut values).unwrap();
        assert!(values[0] == 1.5 && values[1].is_nan());
        assert_eq!(solo.gather(&[3_i64, 4]).unwrap(), [3, 4]);
        assert_eq!(solo.gather_strings("here").unwrap(), ["here"]);
        assert!(solo.differing(b"parameters").unwrap().is_empty());
        let mut bytes = b"id".to_vec();
        solo.broadcast_bytes(&mut bytes, 0).unwrap();
        assert_eq!(bytes, b"id");
    }
}
