//! Packs the texts of bundles, those of one package with what they have in common.
//!
//! The first text of a package becomes a dictionary, and so does a later one that is not much like it, a few times. A
//! package that is stored already has its dictionaries, and is given no more: what changes of it is packed by itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::known::Before;
use crate::event::DERIVATION;
use crate::store::{Dictionary, Tail};

/// Packages whose dictionaries are at hand: a file holds one package as a rule, and each parser is at one file.
const AT_HAND: usize = 8;

/// Dictionaries of one package.
const MAX_OF_PACKAGE: usize = 4;

/// Texts below this are packed by themselves.
const WORTH_A_DICTIONARY: usize = 2 << 10;

/// How many times smaller a text becomes that is like the dictionary.
const ALIKE: usize = 10;

/// Packs texts, from several threads.
pub(super) struct Packer {
    catalog_source: String,
    state: Mutex<State>,
}

struct State {
    /// The dictionaries that were used last, newest first.
    at_hand: VecDeque<(String, Slot)>,
    /// How many a package has been given.
    made: HashMap<String, usize>,
}

/// Where a dictionary comes to be: whoever is there first makes it of the text in hand, and others wait for that.
type Slot = Arc<OnceLock<Arc<Dictionary>>>;

/// A packed text.
pub(super) struct Packed {
    /// The text.
    pub(super) tail: Tail,
    /// The dictionary that was made of it, if one was: it has to be stored.
    pub(super) made: Option<Arc<Dictionary>>,
}

impl Packer {
    pub(super) fn new(before: Before<'_>) -> Self {
        let alike = before.packages.iter().filter(|(_, (_, record))| record.derivation == DERIVATION);
        let made = alike.map(|(package, _)| (package.clone(), MAX_OF_PACKAGE)).collect();
        Packer {
            catalog_source: before.catalog_source.to_owned(),
            state: Mutex::new(State { at_hand: VecDeque::new(), made }),
        }
    }

    /// Packs the text of a bundle.
    pub(super) fn pack(&self, package: &str, text: &[u8]) -> Packed {
        let by_itself = || Packed { tail: Tail::pack(text), made: None };
        if text.len() < WORTH_A_DICTIONARY {
            return by_itself();
        }
        let Some(mut slot) = self.lock().slot(package) else { return by_itself() };
        loop {
            let mut made = None;
            let dictionary = slot.get_or_init(|| {
                let dictionary = Arc::new(Dictionary::new(&self.owner(package), text));
                made = Some(Arc::clone(&dictionary));
                dictionary
            });
            let tail = dictionary.pack(text);
            if made.is_some() || tail.size() * ALIKE <= text.len() {
                return Packed { tail, made };
            }
            match self.lock().next_slot(package, &slot) {
                Some(next) => slot = next,
                None => return Packed { tail, made },
            }
        }
    }

    fn owner(&self, package: &str) -> String {
        format!("{}/{package}", self.catalog_source)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns where the dictionary of a package is or will be; none when it gets none any more.
    fn slot(&mut self, package: &str) -> Option<Slot> {
        match self.at_hand.iter().position(|(name, _)| name == package) {
            Some(position) => {
                let found = self.at_hand.remove(position)?;
                let slot = Arc::clone(&found.1);
                self.at_hand.push_front(found);
                Some(slot)
            }
            None => self.open(package),
        }
    }

    /// Returns the slot after one that does not fit; none when there are no more.
    fn next_slot(&mut self, package: &str, unfit: &Slot) -> Option<Slot> {
        match self.at_hand.iter().position(|(name, _)| name == package) {
            // Somebody else has gone on already.
            Some(position) if !Arc::ptr_eq(&self.at_hand[position].1, unfit) => {
                Some(Arc::clone(&self.at_hand[position].1))
            }
            Some(position) => {
                let slot = self.open(package)?;
                // The new one is in front.
                self.at_hand.remove(position + 1);
                Some(slot)
            }
            None => self.open(package),
        }
    }

    fn open(&mut self, package: &str) -> Option<Slot> {
        let made = match self.made.get_mut(package) {
            Some(made) => made,
            None => self.made.entry(package.to_owned()).or_default(),
        };
        if *made == MAX_OF_PACKAGE {
            return None;
        }
        *made += 1;
        let slot = Slot::default();
        self.at_hand.push_front((package.to_owned(), Arc::clone(&slot)));
        if self.at_hand.len() > AT_HAND + 1 {
            self.at_hand.pop_back();
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::{MetaHash, Provenance};
    use crate::store::ResourceVersion;

    fn packer(stored: &[&str]) -> Packer {
        let record = Provenance { derivation: DERIVATION, ..Provenance::default() };
        let packages =
            stored.iter().map(|name| ((*name).to_owned(), (ResourceVersion::default(), record.clone())));
        let packages: BTreeMap<_, _> = packages.collect();
        Packer::new(Before {
            catalog_source: "catalog",
            packages: &packages,
            presentation: MetaHash::ZERO,
            skips_files: true,
        })
    }

    /// A text of its own kind, in a version.
    fn text(kind: usize, version: usize) -> Vec<u8> {
        let lines: Vec<_> =
            (0..500).map(|line| format!("{}", (line + 1) * (kind + 3) * 7919 % 100_003)).collect();
        format!("{}\n{version}", lines.join("\n")).into_bytes()
    }

    #[test]
    fn versions_of_a_package_share_one_dictionary() {
        let packer = packer(&[]);
        let packed: Vec<_> = (0..20).map(|version| packer.pack("a", &text(1, version))).collect();
        assert_eq!(packed.iter().filter(|packed| packed.made.is_some()).count(), 1);
        let dictionary = packed[0].made.as_ref().unwrap();
        assert!(packed.iter().all(|packed| packed.tail.size() < 100));
        let other = packer.pack("b", &text(1, 0));
        assert_ne!(other.made.unwrap().id(), dictionary.id(), "a dictionary has one owner");
        assert!(packer.pack("a", b"short").made.is_none());
    }

    #[test]
    fn what_is_not_alike_gets_a_few_more() {
        let packer = packer(&[]);
        let packed: Vec<_> = (0..20).map(|kind| packer.pack("a", &text(kind, 0))).collect();
        assert_eq!(packed.iter().filter(|packed| packed.made.is_some()).count(), MAX_OF_PACKAGE);
    }

    #[test]
    fn no_more_than_a_few_dictionaries_are_made_and_fewer_are_at_hand() {
        let packer = packer(&["stored"]);
        assert!(matches!(packer.pack("stored", &text(1, 0)), Packed { tail: Tail::Zstd { .. }, made: None }));
        let mut made = 0;
        for round in 0..10 {
            for package in 0..30 {
                made += usize::from(packer.pack(&format!("p{package}"), &text(1, round)).made.is_some());
                assert!(packer.lock().at_hand.len() <= AT_HAND + 1);
            }
        }
        assert_eq!(made, 30 * MAX_OF_PACKAGE);
    }

    #[test]
    fn parsers_that_begin_together_make_one_dictionary() {
        let packer = packer(&[]);
        let made: usize = std::thread::scope(|scope| {
            let pack = |version| packer.pack("a", &text(1, version)).made.is_some();
            let threads: Vec<_> = (0..8).map(|version| scope.spawn(move || pack(version))).collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(made, 1);
    }
}
