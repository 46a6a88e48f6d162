//! The text of `/proc/net` (proc_net(5)).
