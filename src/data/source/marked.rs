//! Files of text that is not text alone.

/// Text with marks of a program's own between the texts, which a reader of lines would train on.
#[derive(Debug)]
pub struct Marked {
    /// With its article, for sentences.
    pub name: &'static str,
    /// What it begins with, in lower case, after a declaration of XML.
    pub begins: &'static [&'static str],
    /// What makes text alone of it.
    pub remedy: &'static str,
}

pub const MARKED: [Marked; 4] = [
    Marked {
        name: "a dump of MediaWiki",
        begins: &["<mediawiki"],
        remedy: "take its text out (wikiextractor --json), or take a dataset of its text",
    },
    Marked {
        name: "output of wikiextractor with <doc> lines",
        begins: &["<doc id="],
        remedy: "make it with --json",
    },
    Marked {
        name: "a WARC file",
        begins: &["warc/1."],
        remedy: "take its text out (warcio, trafilatura)",
    },
    Marked {
        name: "HTML or XML",
        begins: &["<!doctype", "<html", "<?xml"],
        remedy: "take its text out (trafilatura, or a parser of XML)",
    },
];

impl Marked {
    /// The kind whose marks `head`, the start of a text, begins with.
    pub fn of_content(head: &str) -> Option<&'static Marked> {
        let begin = |text: &str| text.chars().take(20).collect::<String>().to_lowercase();
        let of = |text: &str| {
            let begin = begin(text);
            MARKED
                .iter()
                .find(|marked| marked.begins.iter().any(|mark| begin.starts_with(mark)))
        };
        let head = head.trim_start_matches('\u{feff}').trim_start();
        let after_declaration = head
            .strip_prefix("<?xml")
            .and_then(|rest| of(rest.split_once("?>")?.1.trim_start()));
        after_declaration.or_else(|| of(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_at_the_start_alone() {
        let name = |head: &str| Marked::of_content(head).map(|marked| marked.name);
        let dump = Some("a dump of MediaWiki");
        assert_eq!(name("<mediawiki xmlns=\"x\">\n<page>"), dump);
        assert_eq!(name("\u{feff}<?xml version=\"1.0\"?>\n<mediawiki>"), dump);
        assert_eq!(name("<?xml version=\"1.0\"?>\n<TEI>"), Some("HTML or XML"));
        assert_eq!(name(" <!DOCTYPE html>"), Some("HTML or XML"));
        assert_eq!(name("WARC/1.0\r\nWARC-Type: x"), Some("a WARC file"));
        assert!(name("<doc id=\"12\" url=\"x\">\nTitle").is_some());
        assert_eq!(name("<s> a text that begins so"), None);
        assert_eq!(name("WARC is a format"), None);
        assert_eq!(name(""), None);
    }
}
