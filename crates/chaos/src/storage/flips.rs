//! Bits that turn in files, and whether they have been turned back.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rand::Rng;

/// Where a bit is to turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: PathBuf,
    pub(crate) position: u64,
    pub(crate) bit: u8,
}

/// Places in files of these lengths, each byte as likely as any other: `rate` of all bytes, and at least `at_least`,
/// none twice.
pub(crate) fn choose(
    random: &mut impl Rng,
    files: &[(PathBuf, u64)],
    rate: f64,
    at_least: usize,
) -> Vec<Place> {
    let total: u64 = files.iter().map(|(_, len)| len).sum();
    let wanted = ((total as f64 * rate).round() as usize).max(at_least).min(total as usize);
    let mut chosen = BTreeMap::new();
    while chosen.len() < wanted {
        chosen.insert(random.random_range(0..total), random.random_range(0..8_u8));
    }
    let mut begin = 0;
    let mut places = Vec::new();
    for (file, len) in files {
        let within = chosen.range(begin..begin + len);
        places.extend(within.map(|(at, bit)| Place { file: file.clone(), position: at - begin, bit: *bit }));
        begin += len;
    }
    places
}

/// A byte with a bit turned.
#[derive(Debug)]
struct Flip {
    place: Place,
    bad: u8,
}

/// Bytes with a bit turned each.
#[derive(Debug, Default)]
pub(crate) struct Flips(Vec<Flip>);

impl Flips {
    /// Turns the bits. A file that is gone, or shorter by now, is left alone.
    pub(crate) fn turn(places: Vec<Place>) -> io::Result<Flips> {
        let mut flips = Vec::new();
        for place in places {
            if let Some(bad) = turn(&place)? {
                flips.push(Flip { place, bad });
            }
        }
        Ok(Flips(flips))
    }

    /// How many were turned.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many of them still stand as they were turned. Where there is no such byte any more, its file was written anew.
    pub(crate) fn standing(&self) -> usize {
        let stands = |flip: &&Flip| match read(&flip.place) {
            Ok(Some(byte)) => byte == flip.bad,
            Ok(None) => false,
            Err(_) => true,
        };
        self.0.iter().filter(stands).count()
    }
}

/// The byte that stands there now; none where there is nothing to turn.
fn turn(place: &Place) -> io::Result<Option<u8>> {
    let Some(good) = read(place)? else { return Ok(None) };
    let bad = good ^ (1 << place.bit);
    let file = OpenOptions::new().write(true).open(&place.file)?;
    file.write_all_at(&[bad], place.position)?;
    Ok(Some(bad))
}

fn read(place: &Place) -> io::Result<Option<u8>> {
    let file = match fs::File::open(&place.file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut byte = [0];
    match file.read_exact_at(&mut byte, place.position) {
        Ok(()) => Ok(Some(byte[0])),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// All segments of a broker that are in use, with their lengths.
pub(crate) fn segments(data_dir: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for log in fs::read_dir(data_dir.join("partitions"))? {
        let log = log?.path();
        // One that was put aside has been given up.
        if log.extension().is_some() {
            continue;
        }
        for file in fs::read_dir(&log)? {
            let file = file?;
            if file.path().extension().is_some_and(|extension| extension == "log") {
                files.push((file.path(), file.metadata()?.len()));
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    /// The rate is kept, places lie within their files, and no byte is turned twice.
    #[test]
    fn places_by_rate() {
        let files = [("a", 100), ("b", 0), ("c", 900)].map(|(name, len)| (PathBuf::from(name), len));
        let mut random = StdRng::seed_from_u64(1);
        let places = choose(&mut random, &files, 0.5, 1);
        assert_eq!(places.len(), 500);
        let bounds: BTreeMap<_, _> = files.iter().cloned().collect();
        assert!(places.iter().all(|place| place.position < bounds[&place.file]));
        let mut bytes: Vec<_> = places.iter().map(|place| (&place.file, place.position)).collect();
        bytes.dedup();
        assert_eq!(bytes.len(), 500);
        assert_eq!(choose(&mut random, &files, 1e-5, 5).len(), 5);
        assert_eq!(choose(&mut random, &[], 1e-5, 5), []);
    }

    /// A turned bit stands until the byte is what it was, or its file is another.
    #[test]
    fn turned_bits_stand_until_they_are_mended() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for name in ["mended", "gone", "left"] {
            fs::write(file(name), b"abc").unwrap();
        }
        let place = |name: &str, position| Place { file: file(name), position, bit: 1 };
        let places = ["mended", "gone", "left"].map(|name| place(name, 1));
        let flips = Flips::turn([&places[..], &[place("left", 3), place("never", 0)]].concat()).unwrap();
        assert_eq!((flips.len(), flips.standing()), (3, 3));
        assert_eq!(fs::read(file("left")).unwrap(), b"a\x60c");
        fs::write(file("mended"), b"abc").unwrap();
        fs::remove_file(file("gone")).unwrap();
        assert_eq!(flips.standing(), 1);
    }
}
