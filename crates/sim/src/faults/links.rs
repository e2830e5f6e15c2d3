//! The network falls apart: in one or both directions, between two brokers, around one, or through the middle.

use std::collections::BTreeSet;

use crate::event_queue::Repair;
use crate::network::Link;
use crate::plan::FaultKind;
use crate::world::World;

impl World {
    pub(super) fn strike_links(&mut self, kind: FaultKind, node: usize) {
        let others: Vec<usize> = (0..self.nodes.len()).filter(|&other| other != node).collect();
        let Some(other) = self.random.pick(&others) else { return };
        match kind {
            FaultKind::Isolate => self.cut(both_ways(&[node], &others)),
            FaultKind::Mute => self.cut(others.iter().map(|&other| (node, other)).collect()),
            FaultKind::Deaf => self.cut(others.iter().map(|&other| (other, node)).collect()),
            FaultKind::CutOneWay => self.cut(BTreeSet::from([(node, other)])),
            FaultKind::Bridge => {
                let (one, another) = others.split_at(others.len() / 2);
                self.cut(both_ways(one, another));
            }
            FaultKind::ZoneCut => self.cut_zone(self.nodes[node].zone),
            _ => self.reconnect(node, other),
        }
    }

    /// A zone hears nobody and is heard by nobody, the controllers of the other zones included.
    fn cut_zone(&mut self, zone: usize) {
        let inside = self.zone(zone);
        let outside: Vec<usize> = (0..self.nodes.len()).filter(|node| !inside.contains(node)).collect();
        let while_long = self.random.micros(100_000, 5_000_000);
        let links = both_ways(&inside, &outside);
        self.network.cut(&links);
        self.repair_after(while_long, Repair::Mend(links));
        for node in inside {
            self.controller.cut(node);
            self.repair_after(while_long, Repair::ControllerLink(node));
        }
    }

    fn cut(&mut self, links: BTreeSet<Link>) {
        self.network.cut(&links);
        let while_long = self.random.micros(100_000, 5_000_000);
        self.repair_after(while_long, Repair::Mend(links));
    }

    /// What was sent into the cut is lost; the streams are opened again.
    pub(super) fn mend(&mut self, links: &BTreeSet<Link>) {
        self.network.mend(links);
        let pairs: BTreeSet<Link> =
            links.iter().map(|&(one, other)| (one.min(other), one.max(other))).collect();
        for (one, other) in pairs {
            self.reconnect(one, other);
        }
    }
}

fn both_ways(one: &[usize], other: &[usize]) -> BTreeSet<Link> {
    let pairs = one.iter().flat_map(|&from| other.iter().map(move |&to| (from, to)));
    pairs.flat_map(|(from, to)| [(from, to), (to, from)]).collect()
}
