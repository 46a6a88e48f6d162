//! The list of differences from Linux that are known: it only shrinks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// One case that passes natively and not (yet) on a platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// `family.case`.
    pub name: String,
    /// A platform, or `all`.
    pub platform: String,
    /// Why.
    pub reason: String,
}

impl Difference {
    /// Whether the entry is about this case on this platform.
    pub fn covers(&self, name: &str, platform: &str) -> bool {
        self.name == name && (self.platform == "all" || self.platform == platform)
    }
}

/// Reads the list: `[[difference]]` tables whose keys are all strings, which is all of TOML that it needs.
pub fn read(path: &Path) -> Result<Vec<Difference>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("reading {}", path.display()))
}

fn parse(text: &str) -> Result<Vec<Difference>> {
    let mut list: Vec<Difference> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "[[difference]]" {
            list.push(Difference::default());
            continue;
        }
        let entry = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        let value = entry.and_then(|(key, value)| Some((key, value.strip_prefix('"')?.strip_suffix('"')?)));
        match (value, list.last_mut()) {
            (Some(("name", value)), Some(last)) => last.name = value.to_string(),
            (Some(("platform", value)), Some(last)) => last.platform = value.to_string(),
            (Some(("reason", value)), Some(last)) => last.reason = value.to_string(),
            _ => bail!("line {}: expected [[difference]] or name, platform or reason = \"…\"", index + 1),
        }
    }
    for entry in &list {
        if entry.name.is_empty() || entry.platform.is_empty() || entry.reason.is_empty() {
            bail!("an entry needs name, platform and reason: {entry:?}");
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_entries_and_refuses_others() {
        let list =
            parse("# x\n[[difference]]\nname = \"a.b\"\nplatform = \"ptrace\"\nreason = \"r = \\\"s\"\n")
                .unwrap();
        assert_eq!(list.len(), 1);
        assert!(list[0].covers("a.b", "ptrace") && !list[0].covers("a.b", "systrap"));
        assert!(parse("[[difference]]\nname = \"a\"\n").is_err());
        assert!(parse("name = \"a\"\n").is_err());
        assert!(parse("[[difference]]\nname = 3\n").is_err());
    }
}
