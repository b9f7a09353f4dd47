include!(concat!(env!("OUT_DIR"), "/model/model.rs")); fn main(){}
