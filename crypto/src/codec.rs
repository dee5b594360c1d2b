//! Reading exported states back: every length checked, nothing trusted.

use crate::error::ImportError;
use crate::secret::Secret;

/// Version of every exported state of this crate; the first byte of each.
pub(crate) const EXPORT_VERSION: u8 = 1;

/// Reads integers in big-endian byte order from the front of a slice.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ImportError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(ImportError::Truncated)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(crate) fn secret<const N: usize>(&mut self) -> Result<Secret<N>, ImportError> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(ImportError::Truncated)?;
        self.0 = rest;
        Ok(Secret::filled(|out| *out = *bytes))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ImportError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ImportError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ImportError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn version(&mut self) -> Result<(), ImportError> {
        match self.u8()? {
            EXPORT_VERSION => Ok(()),
            other => Err(ImportError::Version(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_big_endian_and_stops_at_the_end() {
        let mut reader = Reader(&[1, 0, 0, 0, 2, 9]);
        assert_eq!(reader.version(), Ok(()));
        assert_eq!(reader.u32(), Ok(2));
        assert_eq!(reader.u64(), Err(ImportError::Truncated));
        assert_eq!(reader.u8(), Ok(9));
        assert_eq!(reader.u8(), Err(ImportError::Truncated));
        assert_eq!(Reader(&[2]).version(), Err(ImportError::Version(2)));
    }
}
