//! Who a router is: accounts, credentials, verdicts, back-off. Pure.
