package configs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// secretMax bounds what is read as a password or another secret.
const secretMax = 64 << 10

// ReadPassword returns the bridge's password: the configured one, the content of
// password_file without the line end at its end, or that of the environment
// variable password_env.
func (b *Bridge) ReadPassword() (string, error) {
	if b.PasswordFile == "" && b.PasswordEnv == "" {
		return b.Password, nil
	}
	return readSecret(b.PasswordFile, b.PasswordEnv)
}

// ReadSASKey returns the key that makes tokens, "" if there is none; see ReadPassword.
func (b *Bridge) ReadSASKey() (string, error) { return readSecret(b.SASKeyFile, b.SASKeyEnv) }

// readSecret reads a file, or else an environment variable; "" if neither is
// named. An empty secret is an error.
func readSecret(file, env string) (string, error) {
	if file == "" && env == "" {
		return "", nil
	}
	if file == "" {
		secret := os.Getenv(env)
		if secret == "" && validEnv(env) {
			return "", fmt.Errorf("the environment variable %s is not set, or empty", env)
		}
		if secret == "" {
			return "", errors.New("it names no environment variable")
		}
		return secret, nil
	}
	info, err := os.Stat(file)
	if err == nil && info.Size() > secretMax {
		err = fmt.Errorf("%s: %d bytes are too many for a secret", file, info.Size())
	}
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if secret == "" {
		return "", fmt.Errorf("%s: nothing in it", file)
	}
	return secret, nil
}

// CheckFiles reads the files that a valid configuration names and returns nil or
// Problems: files that are missing or hold something else. It changes nothing. Of
// the files of [auth] it says only whether they can be read.
func (c *Config) CheckFiles() error {
	f := fileChecker{decoder{at: c.at}}
	for i := range c.Listeners {
		if t := &c.Listeners[i].TLS; t.Enabled() {
			path := index("listener", i) + ".tls"
			f.pair(path, t.CertFile, t.KeyFile)
			f.certificates(path+".client_ca_file", t.ClientCAFile)
			f.revoked(path+".client_crl_file", t.ClientCRLFile)
		}
	}
	f.readable("auth.password_file", c.Auth.PasswordFile)
	f.readable("auth.acl_file", c.Auth.ACLFile)
	f.readable("auth.jwt.key_file", c.Auth.JWT.KeyFile)
	f.readable("auth.jwt.jwks_file", c.Auth.JWT.JWKSFile)
	_, err := c.Auth.JWT.Secret()
	f.secret("auth.jwt.secret", c.Auth.JWT.SecretFile, err)
	for i := range c.Bridges {
		b, path := &c.Bridges[i], index("bridge", i)
		_, err := b.ReadPassword()
		f.secret(path+".password", b.PasswordFile, err)
		_, err = b.ReadSASKey()
		f.secret(path+".sas_key", b.SASKeyFile, err)
		if len(b.PasswordCommand) > 0 {
			f.program(path+".password_command", b.PasswordCommand[0])
		}
		f.certificates(path+".ca_file", b.CAFile)
		if b.CertFile != "" {
			f.pair(path, b.CertFile, b.KeyFile)
		}
	}
	return f.problems.err()
}

// fileChecker collects what is wrong with files.
type fileChecker struct{ decoder }

func (f *fileChecker) report(path, name, allowed string, err error) {
	if err != nil {
		f.problem(path, quoted(name), allowed, reason(err).Error())
	}
}

// secret reports what came of reading a secret; stem is its key without _file or
// _env.
func (f *fileChecker) secret(stem, file string, err error) {
	switch {
	case err == nil:
	case file != "":
		f.report(stem+"_file", file, "a readable file with a secret", err)
	default:
		f.problem(stem+"_env", "no secret", "an environment variable that is set", err.Error())
	}
}

// readable opens a file and closes it again.
func (f *fileChecker) readable(path, name string) {
	if name == "" {
		return
	}
	file, err := os.Open(name)
	if err == nil {
		var info os.FileInfo
		if info, err = file.Stat(); err == nil && !info.Mode().IsRegular() {
			err = errors.New("it is no regular file")
		}
		_ = file.Close() // nothing was written
	}
	f.report(path, name, "a readable file", err)
}

// program checks that somebody may run a file.
func (f *fileChecker) program(path, name string) {
	info, err := os.Stat(name)
	if err == nil && (!info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0) {
		err = errors.New("it cannot be run")
	}
	f.report(path, name, "a program", err)
}

func (f *fileChecker) certificates(path, name string) {
	if name == "" {
		return
	}
	text, err := os.ReadFile(name)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
		err = errors.New("it has no certificate")
	}
	f.report(path, name, "a readable PEM file of certificates", err)
}

func (f *fileChecker) pair(path, cert, key string) {
	_, err := tls.LoadX509KeyPair(cert, key)
	f.report(path+".cert_file", cert, "a readable PEM certificate that fits key_file", err)
}

// revoked checks a CRL: PEM blocks, or one in DER.
func (f *fileChecker) revoked(path, name string) {
	if name == "" {
		return
	}
	rest, err := os.ReadFile(name)
	if block, after := pem.Decode(rest); err == nil && block == nil {
		_, err = x509.ParseRevocationList(rest)
	} else {
		for ; err == nil && block != nil; block, after = pem.Decode(after) {
			_, err = x509.ParseRevocationList(block.Bytes)
		}
	}
	f.report(path, name, "a readable list of revoked certificates, PEM or DER", err)
}
