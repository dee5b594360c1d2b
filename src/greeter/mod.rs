//! Accepts connections and carries each session until it has an address.
