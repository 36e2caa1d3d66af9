//! Prints the JSON Schema of result files: `make schema` writes it to `docs/result.schema.json`.

fn main() {
    print!("{}", omb_report::result::schema());
}
