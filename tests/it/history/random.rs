//! Chance that can be replayed: the same seed makes the same choices on every
//! machine and with every version of every crate.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another one, whose choices have nothing to do with this one's later ones.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// That of one thing of many, whatever comes of the others.
    pub fn of(seed: u64, name: &str, number: usize) -> Self {
        let mut random = Self(seed);
        for part in name.bytes().map(u64::from).chain([number as u64]) {
            random.0 = random.next() ^ part;
        }
        random.fork()
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `bound` - 1, which is 0 at least.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// So many times out of a hundred.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, self.below(at + 1));
        }
    }

    /// Up to so long.
    pub fn millis(&mut self, up_to: usize) -> std::time::Duration {
        std::time::Duration::from_millis(self.below(up_to + 1) as u64)
    }
}
