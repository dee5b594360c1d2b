//! What is wrong with a configuration, all of it at once.

use std::fmt;

/// One thing to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the key, `listener[1].wrap_key`.
    pub key: String,
    /// What is wrong and what to do, without a full stop.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {reason}")]
    Unreadable {
        /// The file as it was named.
        path: String,
        /// The system's reason.
        reason: String,
    },
    /// The file is not TOML.
    #[error("the configuration is not TOML: line {line}: {reason}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// The parser's reason, one line.
        reason: String,
    },
    /// The file is TOML but not a configuration; never empty.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let mut text = match problems.len() {
        1 => "the configuration has an error:".to_owned(),
        n => format!("the configuration has {n} errors:"),
    };
    for problem in problems {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    text
}
