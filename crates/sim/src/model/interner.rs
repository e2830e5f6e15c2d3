//! Values by number: a state of the search is a handful of numbers, however large what they stand for.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

/// Gives equal values the same number, from 0.
#[derive(Debug)]
pub(super) struct Interner<T> {
    numbers: HashMap<Rc<T>, u32>,
    values: Vec<Rc<T>>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Interner { numbers: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// The number of a value, and whether it is new.
    pub(super) fn number(&mut self, value: T) -> (u32, bool) {
        if let Some(&number) = self.numbers.get(&value) {
            return (number, false);
        }
        let (number, value) = (self.values.len() as u32, Rc::new(value));
        self.values.push(Rc::clone(&value));
        self.numbers.insert(value, number);
        (number, true)
    }

    /// The value of a number that was given out.
    pub(super) fn value(&self, number: u32) -> &T {
        &self.values[number as usize]
    }
}
