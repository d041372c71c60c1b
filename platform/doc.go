// Package platform is what the broker needs of Linux and the standard library does not offer: an epoll poller whose
// waiters hold no thread, sockets as plain file descriptors, limits of the process and its control group, and the
// service manager's notifications.
//
// File descriptors are plain ints here. Whoever got one from this package owns it and closes it exactly once with
// CloseFD; nothing in this package remembers or closes it behind the owner's back.
package platform
