package configs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// passwordFileMax bounds what is read as a password.
const passwordFileMax = 64 << 10

// ReadPassword returns the bridge's password: the configured one or the content
// of password_file without the line end at its end.
func (b *Bridge) ReadPassword() (string, error) {
	if b.PasswordFile == "" {
		return b.Password, nil
	}
	info, err := os.Stat(b.PasswordFile)
	if err == nil && info.Size() > passwordFileMax {
		err = fmt.Errorf("%s: %d bytes are too many for a password", b.PasswordFile, info.Size())
	}
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(b.PasswordFile)
	if err != nil {
		return "", err
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if password == "" {
		return "", fmt.Errorf("%s: no password in it", b.PasswordFile)
	}
	return password, nil
}

// CheckFiles reads the files that a valid configuration names and returns nil or
// Problems: files that are missing or hold something else. It changes nothing.
func (c *Config) CheckFiles() error {
	d := decoder{at: c.at}
	report := func(path, name, allowed string, err error) {
		if err != nil {
			d.problem(path, quoted(name), allowed, reason(err).Error())
		}
	}
	for i := range c.Bridges {
		b, path := &c.Bridges[i], index("bridge", i)
		_, err := b.ReadPassword()
		report(path+".password_file", b.PasswordFile, "a readable file with a password", err)
		if b.CAFile != "" {
			text, err := os.ReadFile(b.CAFile)
			if err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
				err = errors.New("it has no certificate")
			}
			report(path+".ca_file", b.CAFile, "a readable PEM file of certificates", err)
		}
		if b.CertFile != "" {
			_, err := tls.LoadX509KeyPair(b.CertFile, b.KeyFile)
			report(path+".cert_file", b.CertFile, "a readable PEM certificate that fits key_file", err)
		}
	}
	return d.problems.err()
}
