package topic

import "encoding/binary"

// hashLevel hashes one topic level. It gives the same in every process and on
// every machine; see table for what is done about levels that an attacker
// chose to collide.
//
// Each step is a bijection of h for a given word, and of the word for a given
// h: so no two levels of the same length up to 8 bytes collide in 64 bits.
func hashLevel(level []byte, seed uint64) uint32 {
	const k1, k2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9 // odd; those of SplitMix64
	h := (seed ^ uint64(len(level))) * k2
	for len(level) > 8 {
		h = (h ^ binary.LittleEndian.Uint64(level)) * k1
		h ^= h >> 29
		level = level[8:]
	}
	h = (h ^ shortWord(level)) * k1
	h ^= h >> 32
	h *= k2
	return uint32(h >> 32)
}

// shortWord packs up to 8 bytes; for a given length it is injective.
func shortWord(b []byte) uint64 {
	switch n := len(b); {
	case n >= 4:
		return uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[n-4:]))<<32
	case n > 0:
		return uint64(b[0]) | uint64(b[n/2])<<8 | uint64(b[n-1])<<16
	}
	return 0
}
