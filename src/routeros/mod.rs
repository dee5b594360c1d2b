//! RouterOS provisioning scripts and OpenVPN client files. Pure.
