//! Turns merged sources into a configuration, or into a list of all that is wrong with them.
//!
//! Deserialising stops at the first problem. A key that is wrong is noted, taken out, and the rest is tried again, so that
//! one start tells all of them.

use std::path::Path;

use figment::error::{Actual, Kind};
use figment::value::Value;
use figment::{Figment, Profile, Provider as _};
use serde::de::DeserializeOwned;

/// Problems reported at most.
const MAX_PROBLEMS: usize = 20;

/// The configuration, or every problem, one line each.
pub(super) fn extract<T: DeserializeOwned>(figment: &Figment, path: &Path) -> Result<T, Vec<String>> {
    let unreadable =
        |error: figment::Error| error.into_iter().map(|problem| syntax(&problem)).collect::<Vec<_>>();
    let mut sources = figment.data().map_err(unreadable)?;
    let mut value = Value::from(sources.remove(&Profile::Default).unwrap_or_default());
    let mut problems = Vec::new();
    let mut removed = Vec::new();
    while problems.len() < MAX_PROBLEMS {
        let error = match value.deserialize::<T>() {
            Ok(config) if problems.is_empty() => return Ok(config),
            Ok(_) => break,
            Err(error) => error,
        };
        if let Kind::MissingField(field) = &error.kind {
            let key = [&error.path[..], &[field.to_string()]].concat();
            // What was taken out for being wrong is not missing.
            if !removed.contains(&key) {
                problems.push(format!("{} is missing", key.join(".")));
            }
            break;
        }
        if let (Some(text), Some(place)) = (as_text(&error, figment), find(&mut value, &error.path)) {
            *place = text;
            continue;
        }
        problems.push(describe(&error, figment, path));
        if !remove(&mut value, &error.path) {
            break;
        }
        removed.push(error.path.clone());
    }
    Err(problems)
}

/// A file that is no TOML. The excerpt that the parser draws over several lines is left out: it says where by number.
fn syntax(error: &figment::Error) -> String {
    let text = error.to_string();
    let drawn =
        |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    let lines: Vec<&str> = text.lines().filter(|line| !drawn(line)).map(str::trim).collect();
    lines.join(", ")
}

/// The key, where it comes from, and what is wrong with it.
fn describe(error: &figment::Error, figment: &Figment, path: &Path) -> String {
    let key = error.path.join(".");
    let place = if is_from_environment(&error.path, figment) {
        format!("environment variable {}", variable(&error.path))
    } else {
        path.display().to_string()
    };
    match &error.kind {
        Kind::UnknownField(_, known) => {
            format!("unknown key {key} in {place} (known there: {})", known.join(", "))
        }
        kind => format!("{key} in {place}: {kind}"),
    }
}

fn is_from_environment(path: &[String], figment: &Figment) -> bool {
    figment.find_metadata(&path.join(".")).is_some_and(|metadata| metadata.name.contains("environment"))
}

fn variable(path: &[String]) -> String {
    format!("HOLDFAST_{}", path.join("__").replace('-', "_").to_ascii_uppercase())
}

/// A name such as `1` in a variable was read as a number where text is wanted: gives it back as text.
fn as_text(error: &figment::Error, figment: &Figment) -> Option<Value> {
    let number = matches!(
        error.kind,
        Kind::InvalidType(Actual::Bool(_) | Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_), _)
    );
    let text = std::env::var(variable(&error.path)).ok()?;
    (number && is_from_environment(&error.path, figment)).then(|| Value::from(text))
}

fn find<'a>(value: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, key| match value {
        Value::Dict(_, entries) => entries.get_mut(key),
        Value::Array(_, items) => items.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Takes out what is at `path`; `false` if nothing is there.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let Some((last, parent)) = path.split_last() else { return false };
    match find(value, parent) {
        Some(Value::Dict(_, entries)) => entries.remove(last).is_some(),
        Some(Value::Array(_, items)) => {
            let index = last.parse().ok().filter(|index: &usize| *index < items.len());
            index.map(|index| items.remove(index)).is_some()
        }
        _ => false,
    }
}
