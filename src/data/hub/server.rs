//! A server on the loopback that speaks the part of the Hub's API that is used, and misbehaves on demand.
