package configs

import (
	_ "embed"
	"errors"
	"os"
	"path/filepath"
	"reflect"

	"golang.org/x/sys/unix"
)

// Config is the whole configuration. It is made by Default or Load and not
// changed after Validate.
//
// Tags: toml names the key, allow says which values it may have (allow.go),
// secret keeps its value out of messages. Values are those of the keys' names;
// sluice.toml explains each.
type Config struct {
	DataDir   string     `toml:"data_dir"` // "": see DataPath
	Workers   int        `toml:"workers" allow:"0..256"`
	Log       Log        `toml:"log"`
	Listeners []Listener `toml:"listener"`
	Auth      Auth       `toml:"auth"`
	MQTT      MQTT       `toml:"mqtt"`
	Limits    Limits     `toml:"limits"`
	Queue     Queue      `toml:"queue"`
	Store     Store      `toml:"store"`
	Bridges   []Bridge   `toml:"bridge"`

	at positions
}

// Log is what is logged and how.
type Log struct {
	Level  string `toml:"level" allow:"debug|info|warn|error"`
	Format string `toml:"format" allow:"console|json"`
}

// MQTT is what the broker says of itself in the protocol.
type MQTT struct {
	ResponseInformation string `toml:"response_information"` // for CONNACK, when a client asks; "": none
}

// Limits bound what clients may do and make the broker hold. 0 has a meaning of
// its own only where allow says so.
type Limits struct {
	PacketBytesMax                 Bytes    `toml:"packet_bytes_max" allow:"1KiB..256MiB"`
	ConnectBytesMax                Bytes    `toml:"connect_bytes_max" allow:"512B..1MiB"`
	TopicBytesMax                  int      `toml:"topic_bytes_max" allow:"16..65535"`
	TopicLevelsMax                 int      `toml:"topic_levels_max" allow:"1..1000"`
	ClientIDBytesMax               int      `toml:"client_id_bytes_max" allow:"23..65535"`
	ConnectionsMax                 int      `toml:"connections_max" allow:"0..1000000"`             // 0: what the limit of open files leaves
	ConnectionsPerAddressMax       int      `toml:"connections_per_address_max" allow:"0..1000000"` // 0: no limit, as in the next two
	ConnectsPerSecondMax           int      `toml:"connects_per_second_max" allow:"0..1000000"`     // of all listeners
	ConnectsPerSecondPerAddressMax int      `toml:"connects_per_second_per_address_max" allow:"0..1000000"`
	HandshakesMax                  int      `toml:"handshakes_max" allow:"1..10000"` // of TLS, under way at once
	ConnectTimeout                 Duration `toml:"connect_timeout" allow:"100ms..10m"`
	KeepaliveMax                   Duration `toml:"keepalive_max" allow:"0 or 1s..65535s"` // 0: no cap
	SessionExpiryMax               Duration `toml:"session_expiry_max" allow:"0 or 1s..36500d"`
	InflightMax                    int      `toml:"inflight_max" allow:"1..65535"`
	ReceiveMax                     int      `toml:"receive_max" allow:"1..65535"`
	SubscriptionsMax               int      `toml:"subscriptions_max" allow:"1..1000000"`
	TopicAliasMax                  int      `toml:"topic_alias_max" allow:"0..65535"`             // 0: no aliases
	TopicAliasOutMax               int      `toml:"topic_alias_out_max" allow:"0..65535"`         // the same from us to clients
	MessagesPerSecondMax           int      `toml:"messages_per_second_max" allow:"0..1000000"`   // from one client; 0: no limit
	BytesPerSecondMax              Bytes    `toml:"bytes_per_second_max" allow:"0 or 1KiB..1GiB"` // from one client; 0: no limit
	OutputBytesMax                 Bytes    `toml:"output_bytes_max" allow:"4KiB..1GiB"`
	RetainedMessagesMax            int      `toml:"retained_messages_max" allow:"0..10000000"`
	RetainedBytesMax               Bytes    `toml:"retained_bytes_max" allow:"0 or 1KiB..1GiB"`
}

//go:embed sluice.toml
var defaultFile string

// DefaultFile is the commented file that the defaults come from.
func DefaultFile() string { return defaultFile }

// Default returns the configuration without any file.
func Default() *Config {
	c := new(Config)
	if problems := c.lay(defaultFile, "sluice.toml"); len(problems) > 0 {
		panic("BUG: the embedded sluice.toml: " + problems.Error())
	}
	c.at = positions{} // the user knows nothing of that file's lines
	return c
}

// systemDir is where a service keeps its data.
const systemDir = "/var/lib/sluice"

// DataPath returns the directory for the store. Without data_dir it is
// /var/lib/sluice for root and where that can be written; otherwise
// $XDG_STATE_HOME/sluice or ~/.local/state/sluice. It creates nothing.
func (c *Config) DataPath() (string, error) {
	if c.DataDir != "" {
		return c.DataDir, nil
	}
	if os.Geteuid() == 0 || unix.Access(systemDir, unix.W_OK) == nil {
		return systemDir, nil
	}
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "sluice"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("no place for the data: /var/lib/sluice cannot be written and there is no home directory; set data_dir")
	}
	return filepath.Join(home, ".local", "state", "sluice"), nil
}

// Differences returns the keys at the top level, bridge excepted, of which two
// configurations have different values.
func (c *Config) Differences(o *Config) (keys []string) {
	a, b := reflect.ValueOf(c).Elem(), reflect.ValueOf(o).Elem()
	for i := range a.NumField() {
		key := a.Type().Field(i).Tag.Get("toml")
		if key != "" && key != "bridge" && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			keys = append(keys, key)
		}
	}
	return keys
}
