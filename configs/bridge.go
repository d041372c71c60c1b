package configs

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// Bridge is a connection to an upstream broker. TLS files belong to tls://
// addresses only.
type Bridge struct {
	Name                 string    `toml:"name"`
	Address              Addresses `toml:"address"`             // tcp://host[:1883] or tls://host[:8883]
	Proxy                string    `toml:"proxy" secret:"true"` // http://[user:password@]host[:3128] or socks5://[user:password@]host[:1080]
	Interface            string    `toml:"interface"`           // a name, or an address of ours
	Protocol             string    `toml:"protocol" allow:"3.1.1|5|auto"`
	TopicAliases         int       `toml:"topic_aliases" allow:"0..65535"` // with protocol 5
	Failover             string    `toml:"failover" allow:"order|round-robin"`
	ReturnToPrimary      Duration  `toml:"return_to_primary" allow:"0 or 1s..30d"` // with order; 0: never
	ClientID             string    `toml:"client_id"`                              // "": see ClientIDOn
	Username             string    `toml:"username"`
	Password             string    `toml:"password" secret:"true"`
	PasswordFile         string    `toml:"password_file"`
	PasswordEnv          string    `toml:"password_env" secret:"true"`
	PasswordCommand      []string  `toml:"password_command"` // program and arguments
	CommandTimeout       Duration  `toml:"password_command_timeout" allow:"1s..10m"`
	SASKeyFile           string    `toml:"sas_key_file"`
	SASKeyEnv            string    `toml:"sas_key_env" secret:"true"`
	SASResource          string    `toml:"sas_resource"` // "": <host of address>/devices/<client id>
	SASPolicy            string    `toml:"sas_policy"`
	SASLifetime          Duration  `toml:"sas_lifetime" allow:"5m..365d"`
	CAFile               string    `toml:"ca_file"`
	CertFile             string    `toml:"cert_file"`
	KeyFile              string    `toml:"key_file"`
	ServerName           string    `toml:"server_name"`
	ALPN                 []string  `toml:"alpn"`
	InsecureSkipVerify   bool      `toml:"insecure_skip_verify"`
	BridgeBit            bool      `toml:"bridge_bit"`
	Keepalive            Duration  `toml:"keepalive" allow:"1s..65535s"` // whole seconds
	ConnectTimeout       Duration  `toml:"connect_timeout" allow:"1s..10m"`
	ReconnectMin         Duration  `toml:"reconnect_min" allow:"10ms..1h"`
	ReconnectMax         Duration  `toml:"reconnect_max" allow:"10ms..24h"`
	InflightMax          int       `toml:"inflight_max" allow:"1..65535"`
	InflightBytesMax     Bytes     `toml:"inflight_bytes_max" allow:"1KiB..1GiB"`
	PacketBytesMax       Bytes     `toml:"packet_bytes_max" allow:"128B..256MiB"`
	PayloadBytesMax      Bytes     `toml:"payload_bytes_max" allow:"0..256MiB"`          // 0: no limit
	MessagesPerSecondMax int       `toml:"messages_per_second_max" allow:"0..1000000"`   // 0: no limit
	BytesPerSecondMax    Bytes     `toml:"bytes_per_second_max" allow:"0 or 128B..1GiB"` // 0: no limit
	BacklogPercent       int       `toml:"backlog_percent" allow:"1..100"`
	Notifications        bool      `toml:"notifications"`
	CleanSession         bool      `toml:"clean_session"`
	Start                string    `toml:"start" allow:"automatic|lazy|once"`
	IdleTimeout          Duration  `toml:"idle_timeout" allow:"1s..30d"` // with lazy
	Active               []string  `toml:"active"`                       // such as 22:00-06:00; none: always

	Queues []BridgeQueue `toml:"queue"`
	Routes []Route       `toml:"route"`
}

// BridgeQueue is a queue of a bridge, beside the one that routes use which name
// none; with an empty name it is that one. What it does not set has no limit but
// the store's.
type BridgeQueue struct {
	Name        string    `toml:"name"`
	Priority    int       `toml:"priority" allow:"0..9"`
	Share       int       `toml:"share" allow:"1..1000"`
	MessagesMax *int      `toml:"messages_max" allow:"1..100000000"` // nil: no limit; the same for the next two
	BytesMax    *Bytes    `toml:"bytes_max" allow:"1KiB..1GiB"`
	AgeMax      *Duration `toml:"age_max" allow:"0 or 1s..36500d"`
	Policy      *string   `toml:"policy" allow:"reject|drop-oldest|drop-newest"`
}

// Route selects what a bridge carries, and renames it.
type Route struct {
	Direction    string   `toml:"direction" allow:"out|in"`
	Filter       string   `toml:"filter"`
	LocalPrefix  string   `toml:"local_prefix"`
	RemotePrefix string   `toml:"remote_prefix"`
	Exclude      []string `toml:"exclude"`
	QoS          int      `toml:"qos" allow:"0..1"`
	Queue        string   `toml:"queue"` // "": the one without a name
}

// setDefaults fills in a [[bridge]] before its keys are laid over it. sluice.toml
// shows the same values in its commented example, and a test compares them.
func (b *Bridge) setDefaults() {
	*b = Bridge{
		CommandTimeout:   Duration(10 * time.Second),
		SASLifetime:      Duration(time.Hour),
		Protocol:         "3.1.1",
		Failover:         "order",
		ReturnToPrimary:  Duration(5 * time.Minute),
		Keepalive:        Duration(60 * time.Second),
		ConnectTimeout:   Duration(30 * time.Second),
		ReconnectMin:     Duration(1 * time.Second),
		ReconnectMax:     Duration(60 * time.Second),
		InflightMax:      100,
		InflightBytesMax: 4 << 20,
		PacketBytesMax:   1 << 20,
		BacklogPercent:   100,
		CleanSession:     true,
		Start:            "automatic",
		IdleTimeout:      Duration(time.Minute),
	}
}

// setDefaults fills in a [[bridge.queue]].
func (q *BridgeQueue) setDefaults() { *q = BridgeQueue{Share: 1} }

// setDefaults fills in a [[bridge.route]].
func (r *Route) setDefaults() { *r = Route{QoS: 1} }

// ClientIDOn returns the client id towards the upstream on the machine of that
// host name: client_id, or else sluice-<name>-<hostname>. Two gateways with one
// host name would get one client id and disconnect each other without end.
func (b *Bridge) ClientIDOn(hostname string) string {
	if b.ClientID != "" {
		return b.ClientID
	}
	return "sluice-" + b.Name + "-" + hostname
}

// QueueClasses returns the limits of the bridge's queues as classes of the
// sessions that session names, by the queue. Queues that set none have no class.
func (b *Bridge) QueueClasses(session func(queue string) string) []QueueClass {
	var all []QueueClass
	for i := range b.Queues {
		q := &b.Queues[i]
		if q.MessagesMax == nil && q.BytesMax == nil && q.AgeMax == nil && q.Policy == nil {
			continue
		}
		id := session(q.Name)
		all = append(all, QueueClass{Name: id, ClientIDs: []string{id},
			MessagesMax: q.MessagesMax, BytesMax: q.BytesMax, AgeMax: q.AgeMax, Policy: q.Policy})
	}
	return all
}

// bridgeQueues checks the queues of a bridge, and the names that its routes use.
func (v *validator) bridgeQueues(b *Bridge, path string, packetMax Bytes) {
	first := map[string]int{}
	for i := range b.Queues {
		q, path := &b.Queues[i], index(path+".queue", i)
		if j, twice := first[q.Name]; twice {
			v.problem(path+".name", quoted(q.Name)+" twice", "a name of its own for each queue", fmt.Sprintf("see queue[%d]", j))
		} else if q.Name != "" && !validName(q.Name) {
			v.problem(path+".name", quoted(q.Name), "1 to 64 letters, digits, '-', '_' or '.'", "")
		}
		first[q.Name] = i
		of := Queue{BytesMax: packetMax}
		own(&of.BytesMax, q.BytesMax)
		own(&of.AgeMax, q.AgeMax)
		v.queueLimits(&of, path, packetMax)
	}
	for i := range b.Routes {
		r := &b.Routes[i]
		if _, there := first[r.Queue]; r.Queue != "" && !there {
			v.problem(index(path+".route", i)+".queue", quoted(r.Queue), "the name of a [[bridge.queue]]", "")
		}
	}
}

// window is a time of day, twice: the first before the second or not.
var window = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$`)

// active checks when a bridge may be connected.
func (v *validator) active(b *Bridge, path string) {
	for i, w := range b.Active {
		if from, to, _ := strings.Cut(w, "-"); !window.MatchString(w) || from == to {
			v.problem(index(path+".active", i), quoted(w), `two times of day as in "22:00-06:00"`, "")
		}
	}
}

// Fingerprint writes every key of a bridge, secrets included: two bridges whose
// text is the same are configured the same. It is not for people.
func (b *Bridge) Fingerprint() string {
	var text strings.Builder
	walk(reflect.ValueOf(b).Elem(), "", func(v reflect.Value, f reflect.StructField, path string) {
		if v.Kind() == reflect.Struct || v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct {
			return
		}
		if v.Kind() == reflect.Pointer && !v.IsNil() {
			v = v.Elem()
		}
		fmt.Fprintf(&text, "%s=%#v\n", path, v.Interface())
	})
	return text.String()
}
