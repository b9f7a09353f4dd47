//! A model for longer or shorter rows: its position table with more or fewer rows.

use super::weight_map::POSITIONS;
use mpnet_graphs::model::config::{ModelConfig, POSITION_OFFSET};
use mpnet_runtime::engine::NamedArray;

/// Gives the position table of `parameters` as many rows as `model` has positions: rows of `fresh`, the
/// same model's fresh parameters, are added, or the last ones cut off. Returns what was done, if
/// anything.
pub fn resize_positions(
    parameters: &mut [NamedArray],
    fresh: &[NamedArray],
    model: &ModelConfig,
) -> Option<String> {
    let table = parameters.iter_mut().find(|p| p.name == POSITIONS)?;
    let fresh = fresh.iter().find(|p| p.name == POSITIONS)?;
    let (had, wanted) = (table.shape[0], model.max_positions + POSITION_OFFSET);
    let width = model.encoder_embed_dim;
    let done = match had.cmp(&wanted) {
        std::cmp::Ordering::Equal => return None,
        std::cmp::Ordering::Less => {
            table.values.extend_from_slice(&fresh.values[had * width..]);
            "lengthened, the new ones fresh"
        }
        std::cmp::Ordering::Greater => {
            table.values.truncate(wanted * width);
            "cut"
        }
    };
    table.shape[0] = wanted;
    Some(format!(
        "positions {done}: {} instead of {}",
        wanted - POSITION_OFFSET,
        had.saturating_sub(POSITION_OFFSET)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::testing::{config, numbered};

    #[test]
    fn rows_are_added_or_cut_and_the_others_stay() {
        let small = config(1, 2, 4, 8);
        for positions in [5, 16, 40] {
            let model = ModelConfig {
                max_positions: positions,
                ..small.clone()
            };
            let (mut parameters, fresh) = (numbered(&small), numbered(&model));
            let before = parameters.clone();
            let said = resize_positions(&mut parameters, &fresh, &model);
            assert_eq!(said.is_none(), positions == 16, "{said:?}");
            for ((now, before), fresh) in parameters.iter().zip(before).zip(fresh) {
                if now.name != POSITIONS {
                    assert_eq!(*now, before);
                    continue;
                }
                assert_eq!(now.shape, [positions + 2, 8]);
                let kept = 8 * (positions.min(16) + 2);
                assert_eq!(now.values[..kept], before.values[..kept]);
                assert_eq!(now.values[kept..], fresh.values[kept..]);
            }
        }
    }
}
