//! stub
use crate::time::{Instant, WallTime};
/// stub
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// stub
    pub sent: Instant,
    /// stub
    pub received: WallTime,
    /// stub
    pub answered: WallTime,
    /// stub
    pub back: Instant,
}
/// stub
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    best: Option<Exchange>,
}
impl Offsets {
    /// stub
    pub fn add(&mut self, exchange: Exchange) {
        let delay = |e: &Exchange| (e.back.0 - e.sent.0).saturating_sub(e.answered.0 - e.received.0);
        if self.best.as_ref().is_none_or(|best| delay(best) > delay(&exchange)) {
            self.best = Some(exchange);
        }
    }
    /// stub
    #[must_use]
    pub fn estimate(&self, _at: Instant) -> Option<Estimate> {
        self.best.map(|e| Estimate { error: std::time::Duration::from_nanos((e.back.0 - e.sent.0) / 2) })
    }
    /// stub
    #[must_use]
    pub fn drift_ppm(&self) -> Option<(f64, f64)> {
        None
    }
    /// stub
    #[must_use]
    pub fn count(&self) -> u64 {
        0
    }
    /// stub
    #[must_use]
    pub fn wall_of(&self, at: Instant) -> Option<WallTime> {
        let e = self.best?;
        let middle = e.sent.0 + (e.back.0 - e.sent.0) / 2;
        let wall = e.received.0 + (e.answered.0 - e.received.0) / 2;
        Some(WallTime(wall.wrapping_add(at.0.wrapping_sub(middle))))
    }
}
/// stub
#[derive(Debug)]
pub struct Estimate {
    /// stub
    pub error: std::time::Duration,
}
