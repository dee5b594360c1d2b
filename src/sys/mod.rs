//! Every raw system call and ioctl.
