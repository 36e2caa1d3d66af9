//! Whole histograms as text: HdrHistogram V2, deflated, in base64, as every HdrHistogram library reads it.

use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer, V2DeflateSerializer},
};
use serde_json::{Map, Value, json};

use omb_bench::stats::latency::{Latency, UnreadableHistogram};
use omb_machine::quantity::real;

/// How the text is made, for the result to say.
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
/// If the text is no such histogram.
pub fn decode(text: &str, clamped: u64) -> Result<Latency, Unreadable> {
    let bytes = STANDARD.decode(text).map_err(|_| Unreadable::NotBase64)?;
    Ok(Latency::decode(&bytes, clamped)?)
}

/// Why a text is no histogram.
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
/// A hundred steps per half of what is left to 100 %; of equal keys the last value counts. Empty if there is no sample.
#[must_use]
pub fn quantile_map(histogram: &Histogram<u64>, show: impl Fn(u64) -> Value) -> Map<String, Value> {
    let mut map = Map::new();
    if histogram.is_empty() {
        return map;
    }
    for step in histogram.iter_quantiles(100) {
        // `{}` never writes an exponent, but leaves `.0` away.
        let mut key = (step.quantile() * 100.0).to_string();
        if !key.contains('.') {
            key.push_str(".0");
        }
        map.insert(key, show(step.value_iterated_to()));
    }
    map
}

/// A summary and the samples themselves.
#[must_use]
pub fn to_json(latency: &Latency) -> Value {
    json!({
        "count": latency.count(),
        "clamped": latency.clamped(),
        "meanNs": latency.mean(),
        "p50Ns": latency.at(0.5),
        "p75Ns": latency.at(0.75),
        "p95Ns": latency.at(0.95),
        "p99Ns": latency.at(0.99),
        "p999Ns": latency.at(0.999),
        "p9999Ns": latency.at(0.9999),
        "maxNs": latency.max(),
        "data": encode(latency),
    })
}

/// Nanoseconds as floating milliseconds, upstream's unit of all latencies but the publish delay.
#[must_use]
pub fn millis(nanos: u64) -> f64 {
    real(nanos) / 1e6
}

/// Nanoseconds as whole microseconds, to the nearest: upstream's unit of the publish delay.
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
        let map = quantile_map(&histogram, |micros| ms(micros).into());
        assert_eq!(map.len(), 431);
        let (first, last) = (map.iter().next().expect("some"), map.iter().next_back().expect("some"));
        assert_eq!((first.0.as_str(), first.1.as_f64()), ("0.015832805573147563", Some(0.014)));
        assert_eq!((last.0.as_str(), last.1.as_f64()), ("100.0", Some(16.521)));
    }

    #[test]
    fn equal_percentiles_keep_the_last_value() {
        let histogram = upstream("HISTFAAAACt4nJNpmSzMwMDAzQABrFCaEUQwT25nsP8AETjPz3SWn+X1ujmMTACJGgec");
        assert_eq!((histogram.len(), histogram.value_at_quantile(0.5), histogram.max()), (4, 2_000, 60_000_255));
        assert_eq!(histogram.mean().round(), 15_001_282.0);
        let map = Value::from(quantile_map(&histogram, Value::from));
        assert_eq!(map, json!({"25.0": 1000, "75.0": 2000, "100.0": 60_000_255}));
    }

    #[test]
    fn nothing_is_a_histogram_too() {
        for empty in [
            "HISTFAAAAB94nJNpmSzMwMDAyAABrFAazGee3M5g/wEqAgBJwQOa",
            "HISTFAAAACB4nJNpmSzMwMDAyAABrFAaxOfie72Bwf4DVAQAUL8EMA==",
        ] {
            let histogram = upstream(empty);
            assert_eq!((histogram.len(), histogram.max(), histogram.value_at_quantile(0.99)), (0, 0, 0));
            assert!(quantile_map(&histogram, Value::from).is_empty());
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
