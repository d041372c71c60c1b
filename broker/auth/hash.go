package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// DESIGN. What stands behind the user name in a password file is a verifier:
//
//	$7$<iterations>$<salt>$<hash>   PBKDF2-HMAC-SHA512, 64 bytes (mosquitto 2)
//	$6$<salt>$<hash>                SHA-512 of password and salt (mosquitto 1)
//	$2a$, $2b$, $2y$                bcrypt
//	SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>
//
// Salts, hashes and keys are in standard base64. All are compared in constant
// time.

const (
	// IterationsDefault is the cost of a new verifier. An edge broker pays it
	// once per device when all of them reconnect after a power cut: 5000
	// PBKDF2-HMAC-SHA512 iterations take 3 ms on an x86-64 server core; the
	// estimate, not measured, is 10 ms on a 64-bit and 80 ms on a 32-bit
	// Raspberry Pi class core, so that 1000 devices are back within seconds
	// (four cores) or a good minute (one old core). It is fifty times
	// mosquitto 2.0's 101 and above the 4096 that RFC 7677 asks for. Passwords
	// of devices should be random; those need no cost at all.
	IterationsDefault = 5000

	// IterationsMax is the highest cost accepted from a file: an estimated
	// second on a 64-bit, ten on an old 32-bit core. More would let one line keep a
	// core of the gateway busy for minutes.
	IterationsMax = 500_000

	// BcryptCostMax is the same for bcrypt: some seconds on a Raspberry Pi.
	BcryptCostMax = 14
)

// scramName begins a SCRAM verifier, and is the authentication method's name.
const scramName = "SCRAM-SHA-256"

// kind is one of the four verifiers.
type kind uint8

const ( // what is asked first if a user has several stands first
	kindPBKDF2 kind = iota
	kindBcrypt
	kindScram
	kindSHA512
	kinds
)

type verifier struct {
	kind       kind
	iterations int
	salt       []byte
	key        []byte // hash; SCRAM: StoredKey; bcrypt: the whole text
	serverKey  []byte // SCRAM only
}

// verify tells whether password is the right one.
func (v *verifier) verify(password []byte) bool {
	var got []byte
	switch v.kind {
	case kindPBKDF2:
		got = stretch512(password, v.salt, v.iterations)
	case kindBcrypt:
		return bcrypt.CompareHashAndPassword(v.key, password) == nil
	case kindScram:
		got, _ = scramKeys(stretch256(password, v.salt, v.iterations))
	case kindSHA512:
		sum := sha512.Sum512(append(bytes.Clone(password), v.salt...))
		got = sum[:]
	}
	return subtle.ConstantTimeCompare(got, v.key) == 1
}

func stretch512(password, salt []byte, iterations int) []byte {
	key, err := pbkdf2.Key(sha512.New, string(password), salt, iterations, sha512.Size)
	if err != nil {
		panic(fmt.Sprintf("BUG: PBKDF2 with %d iterations: %v", iterations, err))
	}
	return key
}

func stretch256(password, salt []byte, iterations int) []byte {
	key, err := pbkdf2.Key(sha256.New, string(password), salt, iterations, sha256.Size)
	if err != nil {
		panic(fmt.Sprintf("BUG: PBKDF2 with %d iterations: %v", iterations, err))
	}
	return key
}

// scramKeys derives what the server keeps (RFC 5802 section 3).
func scramKeys(salted []byte) (storedKey, serverKey []byte) {
	sum := sha256.Sum256(mac(salted, "Client Key"))
	return sum[:], mac(salted, "Server Key")
}

// mac is HMAC-SHA-256.
func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// HashPassword is the verifier of a password in mosquitto's format $7$ .
// iterations 0: IterationsDefault; salt nil: 12 random bytes.
func HashPassword(password []byte, iterations int, salt []byte) string {
	iterations, salt = costOf(iterations, salt)
	return fmt.Sprintf("$7$%d$%s$%s", iterations, encode(salt), encode(stretch512(password, salt, iterations)))
}

// ScramVerifier is the verifier of a password for SCRAM-SHA-256. It serves for
// a password that is shown in CONNECT, too. iterations and salt are as for
// HashPassword.
func ScramVerifier(password []byte, iterations int, salt []byte) string {
	iterations, salt = costOf(iterations, salt)
	stored, server := scramKeys(stretch256(password, salt, iterations))
	return fmt.Sprintf("%s$%d:%s$%s:%s", scramName, iterations, encode(salt), encode(stored), encode(server))
}

func costOf(iterations int, salt []byte) (int, []byte) {
	if iterations == 0 {
		iterations = IterationsDefault
	}
	if iterations < 0 || iterations > IterationsMax {
		panic(fmt.Sprintf("BUG: %d iterations, at most %d are accepted", iterations, IterationsMax))
	}
	if salt == nil {
		salt = make([]byte, 12)
		rand.Read(salt)
	}
	return iterations, salt
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// errPlain tells of a password that is not hashed; it does not show it.
var errPlain = errors.New("the password is not hashed; write the line with `sluice passwd`")

// parseVerifier reads what stands behind "user:". Its errors do not quote it.
func parseVerifier(s string) (*verifier, error) {
	switch {
	case strings.HasPrefix(s, "$7$"):
		return parseMosquitto(kindPBKDF2, s[3:])
	case strings.HasPrefix(s, "$6$"):
		return parseMosquitto(kindSHA512, s[3:])
	case strings.HasPrefix(s, "$2a$"), strings.HasPrefix(s, "$2b$"), strings.HasPrefix(s, "$2y$"):
		return parseBcrypt(s)
	case strings.HasPrefix(s, scramName+"$"):
		return parseScram(s[len(scramName)+1:])
	}
	return nil, errPlain
}

func parseMosquitto(k kind, s string) (*verifier, error) {
	v := &verifier{kind: k}
	if k == kindPBKDF2 {
		cost, rest, _ := strings.Cut(s, "$")
		if err := v.setIterations(cost); err != nil {
			return nil, err
		}
		s = rest
	}
	salt, key, _ := strings.Cut(s, "$")
	if err := decodeInto(&v.salt, "salt", salt, 0); err != nil {
		return nil, err
	}
	return v, decodeInto(&v.key, "hash", key, sha512.Size)
}

func parseBcrypt(s string) (*verifier, error) {
	cost, err := bcrypt.Cost([]byte(s))
	if err != nil || len(s) != 60 {
		return nil, errors.New("the bcrypt hash is damaged")
	}
	if cost > BcryptCostMax {
		return nil, fmt.Errorf("bcrypt cost %d: at most %d are accepted, so that a login does not take minutes", cost, BcryptCostMax)
	}
	return &verifier{kind: kindBcrypt, key: []byte(s)}, nil
}

func parseScram(s string) (*verifier, error) {
	head, keys, _ := strings.Cut(s, "$")
	cost, salt, _ := strings.Cut(head, ":")
	stored, server, _ := strings.Cut(keys, ":")
	v := &verifier{kind: kindScram}
	return v, errors.Join(
		v.setIterations(cost),
		decodeInto(&v.salt, "salt", salt, 0),
		decodeInto(&v.key, "StoredKey", stored, sha256.Size),
		decodeInto(&v.serverKey, "ServerKey", server, sha256.Size))
}

func (v *verifier) setIterations(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	switch {
	case err != nil || n == 0:
		return errors.New("the number of iterations is none")
	case n > IterationsMax:
		return fmt.Errorf("%d iterations: at most %d are accepted, so that a login does not take minutes", n, IterationsMax)
	}
	v.iterations = int(n)
	return nil
}

// saltMax is far above what any tool writes (12 to 32 bytes).
const saltMax = 256

// decodeInto reads base64 of size bytes; 0: of a salt.
func decodeInto(dst *[]byte, name, s string, size int) error {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	switch {
	case err != nil:
		return fmt.Errorf("the %s is not base64", name)
	case size == 0 && (len(b) == 0 || len(b) > saltMax):
		return fmt.Errorf("the %s has %d bytes, not 1 to %d", name, len(b), saltMax)
	case size != 0 && len(b) != size:
		return fmt.Errorf("the %s has %d bytes, not %d", name, len(b), size)
	}
	*dst = b
	return nil
}
