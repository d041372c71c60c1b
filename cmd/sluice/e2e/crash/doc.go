// Package crash cuts the power of a broker. Its disk is a file that a FUSE server of
// ours offers, with a volatile write cache as real disks have one (platter.go, fuse.go);
// on it are a loop device, ext4 (loop.go), and the store of the real binary, under load.
// A cut is an image of what would be on the platter now: what was flushed, and any part
// of what was not. The image is mounted elsewhere, so the file system's journal is
// replayed, and a second broker starts on it and must have all that was acknowledged.
// The first one goes on, so a cut costs no restart of the load.
//
// The tests need root, /dev/fuse, loop devices and mkfs.ext4. They run in a mount
// namespace of their own, so what they mount goes when they end, however they end.
package crash
