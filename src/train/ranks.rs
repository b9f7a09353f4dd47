//! The ranks of a run as its training loop sees them: sums over all of them, what they must agree on, and who writes.
//!
//! Every micro-batch has a slot of its own in what is summed, which is zero on all ranks but one: sums over an update
//! then do not depend on how many ranks there are, bit for bit.

use super::changes::collect;
use crate::launch::{Launch, Share};
use crate::machine::host_name;
use crate::stop::StopSignal;
use anyhow::{Context, Result, bail};
use mpnet_runtime::collective::{self, Collective};
use mpnet_runtime::digest::{hexadecimal, sha256};
use mpnet_runtime::engine::NamedArray;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// What a rank has to say of itself in every update: see [`Said`].
const SAID: usize = 5;

/// What a rank waits for that has no batch.
pub const TEXT: &str = "its text";

/// The ranks that train together, of which this process is one.
pub struct Ranks {
    launch: Launch,
    group: Arc<dyn Collective>,
    /// The machine of each.
    hosts: Vec<String>,
}

/// What a rank says of itself when all meet.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Said {
    /// The signal that asked it to stop; 0 where none did.
    pub signal: i32,
    /// Whether it has nothing to contribute, as a signal came first.
    pub empty: bool,
    /// Its micro-batches whose loss is no finite number.
    pub not_finite: usize,
    /// Since the update began.
    pub busy: Duration,
    /// Of that, without a batch.
    pub waited: Duration,
}

impl Said {
    fn write(&self, slots: &mut [f64]) {
        slots.copy_from_slice(&[
            f64::from(self.signal),
            f64::from(u8::from(self.empty)),
            self.not_finite as f64,
            self.busy.as_secs_f64(),
            self.waited.as_secs_f64(),
        ]);
    }

    fn read(slots: &[f64]) -> Said {
        let at = |index: usize| slots.get(index).copied().unwrap_or_default();
        Said {
            signal: at(0) as i32,
            empty: at(1) > 0.0,
            not_finite: at(2) as usize,
            busy: Duration::from_secs_f64(at(3).max(0.0)),
            waited: Duration::from_secs_f64(at(4).max(0.0)),
        }
    }
}

/// What all ranks have said, the same on each.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// By rank.
    pub said: Vec<Said>,
    /// The slots that were summed.
    pub slots: Vec<f64>,
}

impl Heard {
    /// The signal that asked any of them to stop.
    pub fn signal(&self) -> Option<i32> {
        let signals = self.said.iter().map(|said| said.signal);
        signals.max().filter(|&signal| signal > 0)
    }

    /// Whether one of them has nothing to contribute.
    pub fn is_empty(&self) -> bool {
        self.said.iter().any(|said| said.empty)
    }

    /// Whether every loss is a finite number.
    pub fn is_finite(&self) -> bool {
        self.said.iter().all(|said| said.not_finite == 0)
    }
}

/// Something that must be the same on all ranks.
pub struct Same {
    /// What it is, for messages.
    pub what: &'static str,
    pub value: Value,
}

/// The value to compare.
pub enum Value {
    /// Shown where it differs.
    Text(String),
    /// Fields of which those that differ are shown.
    Json(serde_json::Value),
    /// Only compared.
    Digest(String),
}

impl Value {
    fn digest(&self) -> String {
        match self {
            Value::Text(text) => sha256(text),
            Value::Json(value) => sha256(value.to_string()),
            Value::Digest(digest) => sha256(digest),
        }
    }

    fn shown(&self) -> String {
        match self {
            Value::Text(text) => text.clone(),
            Value::Json(value) => value.to_string(),
            Value::Digest(_) => String::new(),
        }
    }
}

impl Ranks {
    /// A process alone.
    pub fn alone() -> Ranks {
        Ranks {
            launch: Launch::default(),
            group: collective::solo(),
            hosts: vec![host_name()],
        }
    }

    /// The ranks of `group`, which learn each other's machines.
    ///
    /// # Errors
    /// Where they do not all answer.
    pub fn new(launch: Launch, group: Arc<dyn Collective>) -> Result<Ranks> {
        let hosts = group.gather_strings(&host_name())?;
        Ok(Ranks {
            launch,
            group,
            hosts,
        })
    }

    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// How many there are.
    pub fn world(&self) -> usize {
        self.launch.world
    }

    /// What of several things is this rank's.
    pub fn share(&self) -> Share {
        self.launch.share()
    }

    /// Whether this rank writes what all ranks write together.
    pub fn writes(&self) -> bool {
        self.launch.writes()
    }

    /// A rank as messages name it.
    pub fn name(&self, rank: usize) -> String {
        match self.hosts.get(rank) {
            Some(host) => format!("rank {rank} on {host}"),
            None => format!("rank {rank}"),
        }
    }

    /// The machine of a rank.
    pub fn host(&self, rank: usize) -> &str {
        self.hosts.get(rank).map_or("", String::as_str)
    }

    /// What they meet by.
    pub fn group(&self) -> &Arc<dyn Collective> {
        &self.group
    }

    /// Does something that may take longer than ranks wait for each other, and lets them know what it waits for.
    pub fn while_waiting_for<T>(&self, what: &'static str, wait: impl FnOnce() -> T) -> T {
        self.group.waits_for(Some(what));
        let waited = wait();
        self.group.waits_for(None);
        waited
    }

    /// Time in collectives so far, waiting for the others included.
    pub fn spent(&self) -> Duration {
        self.group.spent().time
    }

    /// Meets the other ranks: says `said`, and sums `slots`, of which each rank has its own. `doing` is for errors.
    ///
    /// # Errors
    /// Where one of them is gone or does not come in time.
    pub fn meet(&self, said: &Said, slots: &[f64], doing: &str) -> Result<Heard> {
        let (world, rank) = (self.launch.world, self.launch.rank);
        let mut all = vec![0.0; SAID * world];
        said.write(&mut all[SAID * rank..SAID * (rank + 1)]);
        all.extend_from_slice(slots);
        let summed = self.group.sum(&mut all);
        summed.with_context(|| format!("{doing}, as {}", self.launch))?;
        let slots = all.split_off(SAID * world);
        Ok(Heard {
            said: all.chunks(SAID).map(Said::read).collect(),
            slots,
        })
    }

    /// The signal that asked any rank to stop, if one did, the same on all.
    ///
    /// # Errors
    /// Where a rank is gone or does not come in time.
    pub fn stopped(&self, stop: &StopSignal, doing: &str) -> Result<Option<i32>> {
        let said = Said {
            signal: stop.received().unwrap_or(0),
            ..Said::default()
        };
        Ok(self.meet(&said, &[], doing)?.signal())
    }

    /// Sums `values` over the ranks, of which each has its own. `doing` is for errors.
    ///
    /// # Errors
    /// Where one of them is gone or does not come in time.
    pub fn sum(&self, values: &mut [f32], doing: &str) -> Result<()> {
        let summed = self.group.sum(values);
        summed.with_context(|| format!("{doing}, as {}", self.launch))
    }

    /// Whether one of the ranks says `yes`.
    ///
    /// # Errors
    /// Where one of them is gone or does not come in time.
    pub fn any(&self, yes: bool, doing: &str) -> Result<bool> {
        let heard = self.meet(&Said::default(), &[f64::from(u8::from(yes))], doing)?;
        Ok(heard.slots[0] > 0.0)
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// Where one of them is gone or does not come in time.
    pub fn wait(&self, doing: &str) -> Result<()> {
        self.any(true, doing).map(|_| ())
    }

    /// What each rank says of itself, by rank.
    ///
    /// # Errors
    /// Where one of them is gone or does not come in time.
    pub fn texts(&self, text: &str) -> Result<Vec<String>> {
        Ok(self.group.gather_strings(text)?)
    }

    /// Checks that `things` are the same on all ranks as on the first.
    ///
    /// # Errors
    /// Naming what differs, where, and how, on every rank.
    pub fn compare(&self, things: &[Same], doing: &str) -> Result<()> {
        let digests: Vec<String> = things.iter().map(|thing| thing.value.digest()).collect();
        let all = self.texts(&digests.join(" ")).context(doing.to_owned())?;
        let all: Vec<Vec<&str>> = all.iter().map(|text| text.split(' ').collect()).collect();
        for (index, thing) in things.iter().enumerate() {
            let of = |rank: &[&str]| rank.get(index).map(|&digest| digest.to_owned());
            let Some(other) = all.iter().position(|rank| of(rank) != of(&all[0])) else {
                continue;
            };
            // All ranks come here, as all of them have seen the same.
            let shown = self.texts(&thing.value.shown())?;
            let (there, here) = (&shown[other], &shown[0]);
            let how = match &thing.value {
                Value::Text(_) => format!(": {there} there, {here} here"),
                Value::Json(_) => differences(there, here),
                Value::Digest(_) => String::new(),
            };
            bail!(
                "{} has {} than {}{how}",
                self.name(other),
                thing.what,
                self.name(0)
            );
        }
        Ok(())
    }
}

/// The fields in which two texts of JSON differ.
fn differences(there: &str, here: &str) -> String {
    let leaves = |text: &str| {
        let mut leaves = Vec::new();
        collect(
            String::new(),
            &serde_json::from_str(text).unwrap_or_default(),
            &mut leaves,
        );
        leaves
    };
    let (there, here) = (leaves(there), leaves(here));
    let mut said = Vec::new();
    for (path, value) in &there {
        let other = here.iter().find(|(name, _)| name == path);
        if other.map(|(_, other)| other) != Some(value) {
            let other = other.map_or("nothing".to_owned(), |(_, other)| other.to_string());
            said.push(format!("{path} is {value} there and {other} here"));
        }
    }
    format!(": {}", said.join(", "))
}

/// SHA-256 of parameters, with their names.
pub fn digest(parameters: &[NamedArray]) -> String {
    let mut hash = Sha256::new();
    let mut bytes = Vec::new();
    for array in parameters {
        hash.update(array.name.as_bytes());
        for block in array.values.chunks(1 << 14) {
            bytes.clear();
            bytes.extend(block.iter().flat_map(|value| value.to_le_bytes()));
            hash.update(&bytes);
        }
    }
    hexadecimal(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ranks_say_is_heard() {
        let said = [
            Said {
                signal: 15,
                busy: Duration::from_millis(1500),
                waited: Duration::from_millis(250),
                ..Said::default()
            },
            Said {
                not_finite: 2,
                ..Said::default()
            },
            Said::default(),
        ];
        let mut slots = vec![0.0; SAID * said.len()];
        for (said, slots) in said.iter().zip(slots.chunks_mut(SAID)) {
            said.write(slots);
        }
        let heard = Heard {
            said: slots.chunks(SAID).map(Said::read).collect(),
            slots: Vec::new(),
        };
        assert_eq!(heard.said, said);
        assert_eq!(heard.signal(), Some(15));
        assert!(!heard.is_finite() && !heard.is_empty());
        let quiet = Heard {
            said: vec![Said::default(); 2],
            slots: Vec::new(),
        };
        assert_eq!(quiet.signal(), None);
        assert!(quiet.is_finite());
    }

    #[test]
    fn fields_that_differ_are_shown() {
        let (there, here) = (r#"{"a":{"b":1},"c":2}"#, r#"{"a":{"b":3},"c":2}"#);
        assert_eq!(differences(there, here), ": a.b is 1 there and 3 here");
        let without = r#"{"c":2}"#;
        assert_eq!(
            differences(there, without),
            ": a.b is 1 there and nothing here"
        );
    }

    #[test]
    fn parameters_are_told_apart_by_a_bit_and_by_a_name() {
        let array = |name: &str, value: f32| NamedArray {
            name: name.to_owned(),
            shape: vec![20_000],
            values: (0..20_000).map(|i| value + i as f32).collect(),
        };
        let one = digest(&[array("a", 1.0)]);
        assert_eq!(one, digest(&[array("a", 1.0)]));
        let mut other = array("a", 1.0);
        other.values[19_999] = f32::from_bits(other.values[19_999].to_bits() ^ 1);
        assert_ne!(one, digest(&[other]));
        assert_ne!(one, digest(&[array("b", 1.0)]));
    }
}
