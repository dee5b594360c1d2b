//! The raw side: a table whose keys are taken out one by one. What is left over is unknown, what
//! has the wrong form is noted, and reading goes on, so that one run finds every error.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use super::error::Problem;
use super::values;

/// What was found wrong, and which keys were asked for.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) problems: Vec<Problem>,
    /// Dotted paths without indices: what a configuration may hold.
    pub(super) asked: BTreeSet<String>,
}

impl Notes {
    pub(super) fn problem(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { key: key.into(), message: message.into() });
    }
}

/// One table of the file.
pub(super) struct Section<'n> {
    path: String,
    table: Table,
    asked: Vec<&'static str>,
    notes: &'n mut Notes,
}

impl<'n> Section<'n> {
    pub(super) fn new(path: &str, table: Table, notes: &'n mut Notes) -> Self {
        Self { path: path.to_owned(), table, asked: Vec::new(), notes }
    }

    /// Dotted path of a key of this table.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        let key = self.path(key);
        self.notes.problem(key, message);
    }

    /// How many problems have been noted, in all tables.
    pub(super) fn problems(&self) -> usize {
        self.notes.problems.len()
    }

    /// True if the file has the key and nobody has taken it yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        let path = without_indices(&self.path(key));
        self.notes.asked.insert(path);
        self.table.remove(key)
    }

    /// A table inside this one; an empty one if it is absent.
    pub(super) fn section<'s>(&'s mut self, key: &'static str) -> Section<'s> {
        let path = self.path(key);
        let table = match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.problem(key, format!("is {}, write a table [{path}]", kind(&other)));
                Table::new()
            }
        };
        Section::new(&path, table, self.notes)
    }

    /// An array of tables; each is handed to `each`.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        mut each: impl FnMut(&mut Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        let entries = match self.take(key) {
            None => return Vec::new(),
            Some(Value::Array(entries)) => entries,
            Some(other) => {
                self.problem(key, format!("is {}, write an array of tables", kind(&other)));
                return Vec::new();
            }
        };
        let path = self.path(key);
        let mut made = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            match entry {
                Value::Table(table) => {
                    let mut section = Section::new(&path, table, self.notes);
                    made.extend(each(&mut section));
                    section.finish();
                }
                other => self.notes.problem(path, format!("is {}, write a table", kind(&other))),
            }
        }
        made
    }

    /// Text that `parse` understands.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match self.take(key)? {
            Value::String(text) => parse(&text).map_err(|message| self.problem(key, message)).ok(),
            other => {
                self.problem(key, format!("is {}, write a text in quotes", kind(&other)));
                None
            }
        }
    }

    /// Text that may be empty, which means "not set".
    pub(super) fn optional_text<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.text(key, |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) })
            .flatten()
    }

    /// A list of texts; every bad entry is noted. None: the key is absent.
    pub(super) fn texts<T: PartialEq>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let entries = match self.take(key)? {
            Value::Array(entries) => entries,
            other => {
                self.problem(key, format!("is {}, write a list [\"...\"]", kind(&other)));
                return None;
            }
        };
        let mut made = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let path = format!("{}[{index}]", self.path(key));
            let parsed = match &entry {
                Value::String(text) => parse(text),
                other => Err(format!("is {}, write a text in quotes", kind(other))),
            };
            match parsed {
                Ok(value) if made.contains(&value) => {
                    self.notes.problem(path, "stands here twice; remove one");
                }
                Ok(value) => made.push(value),
                Err(message) => self.notes.problem(path, message),
            }
        }
        Some(made)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
        default: T,
    ) -> T {
        self.text(key, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
                let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                format!("\"{}\" is not one of {}", values::show(text), all.join(", "))
            })
        })
        .unwrap_or(default)
    }

    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(Value::Boolean(value)) => value,
            Some(other) => {
                self.problem(key, format!("is {}, write true or false", kind(&other)));
                default
            }
        }
    }

    pub(super) fn integer(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        match self.take(key) {
            None => default,
            Some(Value::Integer(value)) => match u64::try_from(value) {
                Ok(value) if range.contains(&value) => value,
                _ => {
                    self.problem(key, out_of_range(&value, range.start(), range.end()));
                    default
                }
            },
            Some(other) => {
                self.problem(key, format!("is {}, write a whole number", kind(&other)));
                default
            }
        }
    }

    /// Bytes: a whole number, or a text with a unit.
    pub(super) fn size(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        let value = match self.take(key) {
            None => return default,
            Some(Value::Integer(value)) => {
                u64::try_from(value).map_err(|_| out_of_range(&value, range.start(), range.end()))
            }
            Some(Value::String(text)) => values::size(&text),
            Some(other) => Err(format!("is {}, write a size like \"64KiB\"", kind(&other))),
        };
        match value {
            Ok(value) if range.contains(&value) => value,
            Ok(value) => {
                self.problem(key, out_of_range(&value, range.start(), range.end()));
                default
            }
            Err(message) => {
                self.problem(key, message);
                default
            }
        }
    }

    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let parsed = self.text(key, values::duration);
        match parsed {
            None => default,
            Some(value) if range.contains(&value) => value,
            Some(value) => {
                let bound = |d: &Duration| format!("{}s", d.as_secs());
                let message =
                    out_of_range(&bound(&value), &bound(range.start()), &bound(range.end()));
                self.problem(key, message);
                default
            }
        }
    }

    /// A path; relative ones are taken from `base`, the folder of the file. None: absent or empty.
    pub(super) fn file(&mut self, key: &'static str, base: &Path) -> Option<PathBuf> {
        self.optional_text(key, |text| {
            if text.contains('\0') {
                return Err("is not a path".to_owned());
            }
            Ok(base.join(text))
        })
    }

    /// Paths, as a list or as one text; relative ones are taken from `base`.
    pub(super) fn files(&mut self, key: &'static str, base: &Path) -> Vec<PathBuf> {
        if matches!(self.table.get(key), Some(Value::String(_))) {
            return self.file(key, base).into_iter().collect();
        }
        let path = |text: &str| match text {
            "" => Err("is empty; name a file".to_owned()),
            text if text.contains('\0') => Err("is not a path".to_owned()),
            text => Ok(base.join(text)),
        };
        self.texts(key, path).unwrap_or_default()
    }

    /// Notes every key that nobody took.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let path = self.path(&values::show(key));
            let near = self.asked.iter().filter_map(|known| {
                let distance = distance(known, key);
                (distance <= 2 || known.starts_with(key.as_str()) && key.len() >= 3)
                    .then_some((distance, known))
            });
            let message = match near.min() {
                Some((_, known)) => format!("is not a known key; did you mean \"{known}\""),
                None => "is not a known key; remove it".to_owned(),
            };
            self.notes.problems.push(Problem { key: path, message });
        }
    }
}

fn out_of_range<T: std::fmt::Display>(value: &impl std::fmt::Display, low: &T, high: &T) -> String {
    format!("{value} is not possible; write a value from {low} to {high}")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a point",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// `listener[0].wrap` -> `listener.wrap`.
fn without_indices(path: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

/// Edits between two keys; large for keys of very different length.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut next = vec![i.saturating_add(1)];
        let mut left = i.saturating_add(1);
        for (cb, pair) in b.iter().zip(row.windows(2)) {
            let &[diagonal, above] = pair else { break };
            let replaced = diagonal.saturating_add(usize::from(ca != *cb));
            left = replaced.min(above.saturating_add(1)).min(left.saturating_add(1));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("listen", "lisen"), 1);
        assert_eq!(distance("mtu", "mut"), 2);
        assert!(distance("management_address", "mtu") > 2);
    }

    #[test]
    fn indices_leave_the_path() {
        assert_eq!(without_indices("tls.certificates[12].key"), "tls.certificates.key");
    }
}
