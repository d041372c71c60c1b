package configs

import (
	"errors"
	"io/fs"
	"os"
)

// Load reads a file over the defaults. Its error is always Problems: that the file
// cannot be read, or unknown keys and wrong types, and then also what Validate
// finds in the rest, so that one run shows everything. A configuration that loads
// still needs Validate, after the command line has had its say (Override).
func Load(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, Problems{{File: path, Found: reason(err).Error(), Allowed: "a readable TOML file"}}
	}
	return parse(string(text), path)
}

func parse(text, path string) (*Config, error) {
	c := Default()
	problems := c.lay(text, path)
	if len(problems) == 0 {
		return c, nil
	}
	if c.at.file != "" { // it was TOML
		problems = append(problems, c.problems()...)
	}
	return nil, problems.err()
}

// reason is what is wrong with a file, without the operation and the name.
func reason(err error) error {
	var file *fs.PathError
	if errors.As(err, &file) {
		return file.Err
	}
	return err
}

// Override applies the command line: addresses, unless there are none, replace
// all listeners and keep nothing of them, TLS included; dataDir, unless empty, replaces
// data_dir.
func (c *Config) Override(addresses []string, dataDir string) {
	if len(addresses) > 0 {
		c.Listeners = make([]Listener, len(addresses))
		for i, address := range addresses {
			c.Listeners[i] = NewListener(address)
		}
		c.at.forget("listener")
	}
	if dataDir != "" {
		c.DataDir = dataDir
		c.at.forget("data_dir")
	}
}
