//! Whole histograms as text: HdrHistogram V2, deflated, in base64, as every HdrHistogram library reads it.

use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer, V2DeflateSerializer},
};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use omb_bench::stats::{
    latency::{DIGITS, HIGHEST, Latency, UnreadableHistogram},
    tally::Totals,
};
use omb_machine::quantity::real;

/// How the text is encoded, as stated in the result.
pub const ENCODING: &str = "HdrHistogram V2, deflated (zlib), base64";

/// The samples of `latency`, in nanoseconds, as text that begins with `HISTFAAA`.
#[must_use]
pub fn encode(latency: &Latency) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(latency.histogram(), &mut bytes)
        .expect("writing to memory does not fail, and the counts fit the format");
    STANDARD.encode(bytes)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// If the text is not such a histogram.
pub fn decode(text: &str, clamped: u64) -> Result<Latency, Unreadable> {
    let bytes = STANDARD.decode(text).map_err(|_| Unreadable::NotBase64)?;
    Ok(Latency::decode(&bytes, clamped)?)
}

/// Why a text is not a histogram.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not even base64.
    #[error("a histogram is not base64")]
    NotBase64,
    /// It is base64 of something else.
    #[error(transparent)]
    NotAHistogram(#[from] UnreadableHistogram),
}

/// Upstream's `…Quantiles` map: percentile as a decimal string → `show` of the highest value of its bucket.
///
/// A hundred steps per half of the way to 100 %; of equal keys the last value counts. Empty if there is no sample.
#[must_use]
pub fn quantile_map<V>(histogram: &Histogram<u64>, show: impl Fn(u64) -> V) -> IndexMap<String, V> {
    let mut map = IndexMap::new();
    if histogram.is_empty() {
        return map;
    }
    for step in histogram.iter_quantiles(100) {
        // `{}` never writes an exponent, but omits `.0`.
        let mut key = (step.quantile() * 100.0).to_string();
        if !key.contains('.') {
            key.push_str(".0");
        }
        map.insert(key, show(step.value_iterated_to()));
    }
    map
}

/// The samples of one latency: figures to read, and the whole histogram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Samples {
    /// Samples.
    pub count: u64,
    /// Samples above one hour, which are counted as one hour.
    pub clamped: u64,
    /// Mean, ns.
    pub mean_ns: f64,
    /// Median, ns.
    pub p50_ns: u64,
    /// 75th percentile, ns.
    pub p75_ns: u64,
    /// 95th percentile, ns.
    pub p95_ns: u64,
    /// 99th percentile, ns.
    pub p99_ns: u64,
    /// 99.9th percentile, ns.
    pub p999_ns: u64,
    /// 99.99th percentile, ns.
    pub p9999_ns: u64,
    /// Highest, ns.
    pub max_ns: u64,
    /// The histogram in [`ENCODING`], values in ns.
    pub data: String,
}

impl Samples {
    /// Figures and samples of `latency`.
    #[must_use]
    pub fn of(latency: &Latency) -> Self {
        Self {
            count: latency.count(),
            clamped: latency.clamped(),
            mean_ns: latency.mean(),
            p50_ns: latency.at(0.5),
            p75_ns: latency.at(0.75),
            p95_ns: latency.at(0.95),
            p99_ns: latency.at(0.99),
            p999_ns: latency.at(0.999),
            p9999_ns: latency.at(0.9999),
            max_ns: latency.max(),
            data: encode(latency),
        }
    }
}

/// The latencies of a run, from the first measured message to the last answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Histograms {
    /// How `data` is encoded.
    pub encoding: String,
    /// Unit of the values in `data`.
    pub unit: String,
    /// Significant decimal digits of the values.
    pub significant_digits: u8,
    /// Highest value that can be distinguished from higher ones, ns.
    pub highest_ns: u64,
    /// Acknowledged minus intended: the headline, which no stall of the sender can hide.
    pub publish_from_intended: Samples,
    /// Acknowledged minus sent: what the messaging system itself took.
    pub publish_from_sent: Samples,
    /// Sent minus intended: how far the sender itself lagged.
    pub schedule_error: Samples,
    /// Received minus intended. Absent if it cannot be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_from_intended: Option<Samples>,
    /// Received minus sent. Absent if it cannot be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_from_sent: Option<Samples>,
}

impl Histograms {
    /// The latencies in `totals`, with or without the end-to-end ones.
    #[must_use]
    pub fn of(totals: &Totals, end_to_end: bool) -> Self {
        let Totals { departures, acknowledgements: acks, arrivals, seen: _ } = totals;
        Self {
            encoding: ENCODING.to_owned(),
            unit: "ns".to_owned(),
            significant_digits: DIGITS,
            highest_ns: HIGHEST,
            publish_from_intended: Samples::of(&acks.from_intended),
            publish_from_sent: Samples::of(&acks.from_sent),
            schedule_error: Samples::of(&departures.schedule_error),
            end_to_end_from_intended: end_to_end.then(|| Samples::of(&arrivals.from_intended)),
            end_to_end_from_sent: end_to_end.then(|| Samples::of(&arrivals.from_sent)),
        }
    }
}

/// Nanoseconds as floating milliseconds, upstream's unit for all latencies but the publish delay.
#[must_use]
pub fn millis(nanos: u64) -> f64 {
    real(nanos) / 1e6
}

/// Nanoseconds as whole microseconds, to the nearest: upstream's unit for the publish delay.
#[must_use]
pub fn whole_micros(nanos: u64) -> u64 {
    nanos.saturating_add(500) / 1_000
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;

    use super::*;

    /// Histograms as upstream's workers send them, in microseconds with 5 digits.
    fn upstream(text: &str) -> Histogram<u64> {
        let bytes = STANDARD.decode(text).expect("base64");
        Deserializer::new().deserialize(&mut bytes.as_slice()).expect("a histogram")
    }

    const REAL: &str = include_str!("testdata/publish_latency.txt");

    #[test]
    fn a_real_publish_latency_reads_as_upstream_reads_it() {
        let histogram = upstream(REAL.trim());
        let ms = |micros: u64| real(micros) / 1_000.0;
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        assert_eq!(histogram.len(), 6_316);
        assert!((histogram.mean() / 1_000.0 - 0.178_586_13).abs() < 5e-9, "{}", histogram.mean());
        assert_eq!([0.5, 0.75, 0.95, 0.99, 0.999, 0.9999].map(at), [0.143, 0.18, 0.307, 0.932, 6.244, 16.521]);
        assert_eq!(ms(histogram.max()), 16.521);
        let map = quantile_map(&histogram, ms);
        assert_eq!(map.len(), 431);
        assert_eq!(map.first(), Some((&"0.015832805573147563".to_owned(), &0.014)));
        assert_eq!(map.last(), Some((&"100.0".to_owned(), &16.521)));
    }

    #[test]
    fn equal_percentiles_keep_the_last_value() {
        let histogram = upstream("HISTFAAAACt4nJNpmSzMwMDAzQABrFCaEUQwT25nsP8AETjPz3SWn+X1ujmMTACJGgec");
        assert_eq!((histogram.len(), histogram.value_at_quantile(0.5), histogram.max()), (4, 2_000, 60_000_255));
        assert_eq!(histogram.mean().round(), 15_001_282.0);
        let map = quantile_map(&histogram, |micros| micros);
        let found: Vec<_> = map.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        assert_eq!(found, [("25.0", 1000), ("75.0", 2000), ("100.0", 60_000_255)]);
    }

    #[test]
    fn nothing_is_a_histogram_too() {
        for empty in [
            "HISTFAAAAB94nJNpmSzMwMDAyAABrFAazGee3M5g/wEqAgBJwQOa",
            "HISTFAAAACB4nJNpmSzMwMDAyAABrFAaxOfie72Bwf4DVAQAUL8EMA==",
        ] {
            let histogram = upstream(empty);
            assert_eq!((histogram.len(), histogram.max(), histogram.value_at_quantile(0.99)), (0, 0, 0));
            assert!(quantile_map(&histogram, |micros| micros).is_empty());
        }
    }

    #[test]
    fn ours_come_back_and_look_like_upstreams() {
        let mut latency = Latency::new();
        [0, 1, 1_000, 5_000_000, u64::MAX].iter().for_each(|nanos| latency.record(*nanos));
        let text = encode(&latency);
        assert!(text.starts_with("HISTFAAA"), "{text}");
        assert_eq!(decode(&text, latency.clamped()), Ok(latency));
        assert_eq!(decode("%", 0), Err(Unreadable::NotBase64));
        assert!(matches!(decode("AAAA", 0), Err(Unreadable::NotAHistogram(_))));
    }
}
