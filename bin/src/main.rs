fn main() {
    println!("{}", omb_runtime_real::v());
}
