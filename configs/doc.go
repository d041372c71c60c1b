// Package configs reads Sluice's configuration file.
//
// DESIGN. The file is TOML. sluice.toml in this directory is embedded and is
// the defaults: Default decodes it, there is no second list of them. A file of
// the user's is laid over it, strictly: a key that Sluice does not know is an
// error, for a misspelt limit is otherwise a limit that is not there.
//
// The TOML library turns text into a tree (and finds syntax errors); the tree is
// laid over the structs here (decode.go), because the library stops at the first
// wrong type and does not say in which element of an array it was. The library
// also keeps no line numbers: lines.go finds them. What a field allows stands in its
// tag (allow.go); what fields mean together is in validate.go. Everything that
// is wrong is collected as Problems and reported at once, each with file, line,
// key, what was found and what is allowed.
//
// Nothing here opens a socket, creates a file or resolves a name: that a
// configuration is right can be checked on any machine. Only CheckFiles looks at
// the files that it names.
package configs
