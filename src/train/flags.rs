//! Which flag decides which value of a run's configuration.

/// What a flag decides: whether `--resume` minds another value, and whether `config.toml` keeps it.
///
/// Paths are those of the configuration in a checkpoint, such as `optimizer.epsilon`; one stands for
/// everything below it, unless another flag names that more precisely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Values on which the updates depend: a resumed run must have the same ones.
    Updates(&'static [&'static str]),
    /// Values on which no update depends, of which only those named are in checkpoints.
    Surroundings(&'static [&'static str]),
    /// How one start is made: `config.toml` does not keep it.
    Start,
}

impl Effect {
    /// The values decided.
    pub fn paths(self) -> &'static [&'static str] {
        match self {
            Effect::Updates(paths) | Effect::Surroundings(paths) => paths,
            Effect::Start => &[],
        }
    }
}

/// A flag's name, without dashes, and what it decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    pub name: String,
    pub effect: Effect,
}

/// The flags of the program that trains.
#[derive(Debug, Clone, Default)]
pub struct Flags(pub Vec<Flag>);

impl Flags {
    /// The flags that decide the value at `path`: those whose path is the closest to it.
    pub fn of<'f>(&'f self, path: &str) -> Vec<&'f Flag> {
        let closest = |flag: &Flag| {
            let paths = flag.effect.paths().iter();
            paths.filter(|p| is_below(path, p)).map(|p| p.len()).max()
        };
        let longest = self.0.iter().filter_map(closest).max();
        let flags = self.0.iter();
        flags
            .filter(|flag| longest.is_some() && closest(flag) == longest)
            .collect()
    }

    /// The flags that decide a value below `path`, as a sentence lists them.
    pub fn below(&self, path: &str) -> String {
        let decides = |flag: &&Flag| flag.effect.paths().iter().any(|p| is_below(p, path));
        listed(&self.0.iter().filter(decides).collect::<Vec<_>>())
    }

    /// Whether updates depend on the value at `path`. One that no flag decides is taken to matter.
    pub fn matter(&self, path: &str) -> bool {
        let flags = self.of(path);
        flags.is_empty() || flags.iter().any(|f| matches!(f.effect, Effect::Updates(_)))
    }

    /// `text` with the fields of the configuration that it names, such as `max_batch_tokens`, replaced by
    /// their flags. A field of one word is left alone: it may be a word of the sentence. So is what is quoted, and an
    /// excerpt of a file: those are others' words.
    pub fn translate(&self, text: &str) -> String {
        let lines = text.split('\n').map(|line| match is_excerpt(line) {
            true => line.to_owned(),
            false => self.translate_line(line),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn translate_line(&self, text: &str) -> String {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-./\\".contains(c);
        let mut translated = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(|c| is_name(c) || QUOTES.contains(&c)) {
            let (before, from) = rest.split_at(start);
            translated += before;
            if let Some(quote) = QUOTES.into_iter().find(|&quote| from.starts_with(quote)) {
                let end = from[1..].find(quote).map_or(1, |behind| behind + 2);
                let (quoted, after) = from.split_at(end);
                translated += quoted;
                rest = after;
                continue;
            }
            let (word, after) = from.split_at(from.find(|c| !is_name(c)).unwrap_or(from.len()));
            match self.field(word) {
                Some(flag) => translated += &format!("--{flag}"),
                None => translated += word,
            }
            rest = after;
        }
        translated + rest
    }

    /// The flag of the field of that name, where it has an underscore.
    fn field(&self, name: &str) -> Option<&str> {
        let decides = |flag: &&Flag| {
            let mut paths = flag.effect.paths().iter();
            paths.any(|path| path.rsplit('.').next() == Some(name))
        };
        let flag = self.0.iter().find(decides).filter(|_| name.contains('_'));
        flag.map(|flag| flag.name.as_str())
    }

    /// The flags that decide the value at `path`, as a sentence names them; the path itself where no flag
    /// does.
    pub fn name(&self, path: &str) -> String {
        let flags = self.of(path);
        if flags.is_empty() {
            return path.to_owned();
        }
        listed(&flags)
    }
}

/// What stands around others' words.
const QUOTES: [char; 2] = ['"', '`'];

/// Whether a line of a message shows a line of a file, as TOML's errors do: `3 | max_tokens = `.
fn is_excerpt(line: &str) -> bool {
    let behind = line
        .trim_start()
        .trim_start_matches(|c: char| c.is_ascii_digit());
    behind.trim_start().starts_with('|')
}

/// Whether `path` is `above` or a value below it.
fn is_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// `--a`, `--a or --b`, `--a, --b or --c`.
fn listed(flags: &[&Flag]) -> String {
    let names: Vec<String> = flags.iter().map(|f| format!("--{}", f.name)).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_path_decides() {
        let flag = |name: &str, effect| Flag {
            name: name.into(),
            effect,
        };
        let flags = Flags(vec![
            flag("preset", Effect::Updates(&["architecture"])),
            flag("encoder-layers", Effect::Updates(&["architecture.layers"])),
            flag("input-mode", Effect::Updates(&["masking.objective"])),
            flag("return-mlm", Effect::Updates(&["masking.objective"])),
            flag("ort", Effect::Surroundings(&["ort"])),
            flag("resume", Effect::Start),
        ]);
        assert_eq!(flags.name("architecture.layers"), "--encoder-layers");
        assert_eq!(flags.name("architecture.width"), "--preset");
        assert_eq!(flags.name("architectures"), "architectures");
        assert_eq!(
            flags.name("masking.objective"),
            "--input-mode or --return-mlm"
        );
        assert_eq!(flags.below("architecture"), "--preset or --encoder-layers");
        assert!(flags.matter("architecture.width") && flags.matter("unknown"));
        assert!(!flags.matter("ort"));
    }

    #[test]
    fn fields_in_a_message_become_flags() {
        let flag = |name: &str, path: &'static [&'static str]| Flag {
            name: name.into(),
            effect: Effect::Updates(path),
        };
        let flags = Flags(vec![
            flag("max-tokens", &["max_tokens"]),
            flag("num-workers", &["data_threads"]),
            flag("seed", &["seed"]),
        ]);
        let said = "max_tokens 9 of (data_threads): the seed of a/max_tokens.txt, max_tokens";
        assert_eq!(
            flags.translate(said),
            "--max-tokens 9 of (--num-workers): the seed of a/max_tokens.txt, --max-tokens"
        );
        // What others wrote stays: a column of that name, a line of a file.
        let quoted = "max_tokens: its field \"max_tokens\" is `data_threads`, 5\" or data_threads";
        assert_eq!(
            flags.translate(quoted),
            "--max-tokens: its field \"max_tokens\" is `data_threads`, 5\" or --num-workers"
        );
        let error = "--mix a.toml: error at line 1\n  |\n1 | max_tokens = \n  | ^\nof data_threads";
        let translated = error.replace("of data_threads", "of --num-workers");
        assert_eq!(flags.translate(error), translated);
    }
}
