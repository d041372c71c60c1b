// Package auth decides who a client is (Rules.Authenticate, Exchange), what it
// may do (Permit), and who has failed too often to be asked (Guard).
//
// DESIGN. Rules are one immutable snapshot made of the contents of files that
// the caller has read: password file, ACL file, keys of tokens. A reload makes
// new Rules and swaps a pointer; whoever holds the old ones goes on with them.
// Rules.Permit compiles what one client may do, once per login, so that the
// question on the path of a PUBLISH (Permit.Can) is a walk over a few filters
// that allocates nothing and asks nobody.
//
// What costs time (hashing a password, verifying a token's signature) happens
// in Authenticate only. Rules.Cheap tells whether it will, so that a worker
// decides by itself whether to hand the login to the pool of front. An
// Exchange (SCRAM) costs three HMACs per login and is always cheap.
//
// The package starts no goroutine, opens no file, reads no clock and logs
// nothing. Its only source besides its arguments is crypto/rand, for nonces
// and salts. Exchange belongs to one connection; all else here may be used
// from any goroutine at once, except PasswordFile.
//
// Who wins:
//
//   - The methods are asked in the order of Sources.Methods; the first that
//     accepts decides, and a method that has nothing to judge is passed over.
//   - A user that a certificate names overrides the user name of CONNECT, and
//     its password is not looked at.
//   - A user name that nothing has proved is worth nothing: where no method
//     judges it, the client is anonymous.
//   - In the rules of a client "deny" wins, wherever it stands.
package auth
