//! The stock server in the concentrator's namespace: proves the lab, and is what speed is
//! compared with.

use crate::lab::{CONCENTRATOR, Lab};
use crate::site::MANAGEMENT;
use crate::support::client::Config;
use crate::support::keys::{Keys, Wrap};
use crate::support::stock::{Options, Stock};

/// Starts it, with the management address and the pool's route as `serve` sets them.
pub(crate) fn start(lab: &Lab, keys: &Keys, cipher: &str) -> Stock {
    lab.concentrator.ip(&format!("addr add {MANAGEMENT}/32 dev lo"));
    let push = format!("push \"route {MANAGEMENT} 255.255.255.255\"");
    let local = format!("local {CONCENTRATOR}");
    let options = Options {
        wrap: Wrap::None,
        digest: "SHA256",
        ciphers: cipher,
        passwords: &[("router-1", "Secret-1"), ("router-2", "Secret-2")],
        certificate_required: false,
        lines: &[
            "dev head0",
            "dev-type tun",
            "server 100.64.0.0 255.255.0.0",
            "port 8443",
            "disable-dco",
            &local,
            &push,
        ],
    };
    let stock = Stock::start_by(keys, &options, |program| lab.concentrator.command(program));
    lab.concentrator.ip(&format!("route replace 100.64.0.0/16 dev head0 src {MANAGEMENT}"));
    stock
}

/// The configuration of router number `index`, counted from 0.
pub(crate) fn client(keys: &Keys, index: usize, cipher: &str) -> Config {
    let number = index + 1;
    let text = format!("client\ndev tun\nproto tcp-client\nremote {CONCENTRATOR} 8443");
    Config::given(&text)
        .lines(&["auth SHA256", &format!("data-ciphers {cipher}")])
        .inline("ca", &keys.authority.pem())
        .password(&format!("router-{number}"), &format!("Secret-{number}"))
}
