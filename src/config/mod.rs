//! Configuration: file, raw values, validated values; all errors at once.
