//! Bindings: the values a run reads from outside, by the handles of its leaves.

use crate::Leaf;

/// One item for each leaf of a program: a [`Slice`](crate::Slice) on the CPU, a view of the device's memory on a GPU.
#[derive(Clone, Debug)]
pub struct Bindings<T> {
    /// For every leaf of the graph.
    items: Vec<Option<T>>,
}

impl<T> Default for Bindings<T> {
    fn default() -> Self {
        Bindings { items: Vec::new() }
    }
}

impl<T> Bindings<T> {
    /// Bindings of no leaf.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a leaf its item. Leaves that a program does not read may be bound.
    pub fn bind(&mut self, leaf: Leaf, item: T) -> &mut Self {
        if self.items.len() <= leaf.index() {
            self.items.resize_with(leaf.index() + 1, || None);
        }
        self.items[leaf.index()] = Some(item);
        self
    }

    /// Item of a leaf.
    pub fn get(&self, leaf: Leaf) -> Option<&T> {
        self.items.get(leaf.index())?.as_ref()
    }
}
