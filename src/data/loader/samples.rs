//! From the tokens of texts to rows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Token ids of a row, `<s>` first.
pub type Row = Arc<[u32]>;

/// How texts become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BreakMode {
    /// One text a row, cut off at the longest row.
    #[default]
    Eos,
    /// Whole texts, each ended by `</s>`, as many as fit.
    Complete,
    /// Texts, each ended by `</s>`, cut wherever a row is full: no padding.
    None,
    /// One text over as many rows as it takes.
    Chunk,
}

impl BreakMode {
    pub const ALL: [BreakMode; 4] = [
        BreakMode::Eos,
        BreakMode::Complete,
        BreakMode::None,
        BreakMode::Chunk,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            BreakMode::Eos => "eos",
            BreakMode::Complete => "complete",
            BreakMode::None => "none",
            BreakMode::Chunk => "chunk",
        }
    }

    /// The mode of that name.
    pub fn from_name(name: &str) -> Option<BreakMode> {
        BreakMode::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// Makes rows of tokens.
#[derive(Debug)]
pub struct Packer {
    pub mode: BreakMode,
    /// Tokens of a row at most, `<s>` and `</s>` included; 3 or more.
    pub max_tokens: usize,
    pub bos: u32,
    pub eos: u32,
    /// The row that is not full yet; empty, or `<s>` and more.
    pub open: Vec<u32>,
}

impl Packer {
    /// How much of a text is worth tokenizing: this many tokens, `<s>` and `</s>` included.
    pub fn wanted_tokens(&self) -> usize {
        match self.mode {
            BreakMode::Eos => self.max_tokens,
            BreakMode::Complete | BreakMode::None | BreakMode::Chunk => usize::MAX,
        }
    }

    /// Takes the tokens of a text, `<s>` and `</s>` included, and gives the rows that became full. False
    /// where it has none but those two.
    pub fn push(&mut self, text: &[u32], rows: &mut Vec<Row>) -> bool {
        let inner = match text {
            [_, inner @ .., _] => inner,
            [] | [_] => &[],
        };
        match self.mode {
            BreakMode::Eos => {
                rows.push(text.into());
                return !inner.is_empty();
            }
            BreakMode::Complete | BreakMode::None | BreakMode::Chunk if inner.is_empty() => {
                return false;
            }
            BreakMode::Chunk => {
                for part in inner.chunks(self.max_tokens - 2) {
                    let row = [&[self.bos], part, &[self.eos]].concat();
                    rows.push(row.into());
                }
            }
            BreakMode::Complete => {
                let inner = &inner[..inner.len().min(self.max_tokens - 2)];
                if self.open.len() + inner.len() + 1 > self.max_tokens {
                    self.close(rows);
                }
                if self.open.is_empty() {
                    self.open.push(self.bos);
                }
                self.open.extend_from_slice(inner);
                self.open.push(self.eos);
            }
            BreakMode::None => {
                for token in inner.iter().copied().chain([self.eos]) {
                    if self.open.is_empty() {
                        self.open.push(self.bos);
                    }
                    self.open.push(token);
                    if self.open.len() == self.max_tokens {
                        self.close(rows);
                    }
                }
            }
        }
        true
    }

    /// At the end of an epoch: whole texts don't wait for those of the next one.
    pub fn end_epoch(&mut self, rows: &mut Vec<Row>) {
        match self.mode {
            BreakMode::Complete => self.close(rows),
            // Filled to the brim means across epochs too.
            BreakMode::Eos | BreakMode::Chunk | BreakMode::None => {}
        }
    }

    fn close(&mut self, rows: &mut Vec<Row>) {
        if !self.open.is_empty() {
            rows.push(self.open.as_slice().into());
            self.open.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOS: u32 = 0;
    const EOS: u32 = 2;

    fn pack(mode: BreakMode, max_tokens: usize, texts: &[&[u32]]) -> (Vec<Vec<u32>>, Vec<u32>) {
        let mut packer = Packer {
            mode,
            max_tokens,
            bos: BOS,
            eos: EOS,
            open: Vec::new(),
        };
        let mut rows = Vec::new();
        for text in texts {
            let all = [&[BOS], *text, &[EOS]].concat();
            let wanted = packer.wanted_tokens().min(all.len());
            let cut = [&all[..wanted - 1], &[EOS]].concat();
            packer.push(&cut, &mut rows);
        }
        let rows = rows.iter().map(|row| row.to_vec()).collect();
        (rows, packer.open)
    }

    const TEXTS: [&[u32]; 4] = [&[10, 11], &[20], &[30, 31, 32, 33, 34, 35], &[]];

    #[test]
    fn eos_gives_each_text_a_row_and_cuts_it() {
        let (rows, open) = pack(BreakMode::Eos, 5, &TEXTS);
        assert_eq!(
            rows,
            [
                vec![0, 10, 11, 2],
                vec![0, 20, 2],
                vec![0, 30, 31, 32, 2],
                vec![0, 2]
            ]
        );
        assert!(open.is_empty());
    }

    #[test]
    fn chunk_spreads_a_text_over_rows() {
        let (rows, open) = pack(BreakMode::Chunk, 6, &TEXTS);
        assert_eq!(
            rows,
            [
                vec![0, 10, 11, 2],
                vec![0, 20, 2],
                vec![0, 30, 31, 32, 33, 2],
                vec![0, 34, 35, 2]
            ]
        );
        assert!(open.is_empty());
    }

    #[test]
    fn complete_packs_whole_texts() {
        let (rows, open) = pack(BreakMode::Complete, 6, &TEXTS);
        assert_eq!(rows, [[0, 10, 11, 2, 20, 2]]);
        assert_eq!(open, [0, 30, 31, 32, 33, 2]);
    }

    #[test]
    fn none_fills_rows_to_the_brim() {
        let (rows, open) = pack(BreakMode::None, 6, &TEXTS);
        assert_eq!(rows, [[0, 10, 11, 2, 20, 2], [0, 30, 31, 32, 33, 34]]);
        assert_eq!(open, [0, 35, 2]);
    }
}
