pub fn v() -> String {
    format!("{:?}", rdkafka::util::get_rdkafka_version())
}
