package bridge

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// DESIGN. Shared access signatures, the tokens of Azure IoT Hub: a resource and a time,
// signed with a key that both sides have. We make our own for each dial, so nothing that
// expires has to be brought to the gateway. It takes a clock that is right: one that
// was never set would make tokens that expired decades ago.

const sasPrefix = "SharedAccessSignature "

// SAS describes how to make tokens.
type SAS struct {
	Resource string        // such as hub.azure-devices.net/devices/name
	Policy   string        // name of the key's policy; "": it is the key of a device
	Key      string        // base64
	Lifetime time.Duration // of a token
}

// Validate returns nil or what is wrong.
func (s *SAS) Validate() error {
	var errs []error
	if s.Resource == "" {
		errs = append(errs, errors.New("SAS: no resource"))
	}
	if key, err := base64.StdEncoding.DecodeString(s.Key); err != nil || len(key) == 0 {
		errs = append(errs, errors.New("SAS: the key is not base64"))
	}
	if s.Lifetime < time.Minute {
		errs = append(errs, fmt.Errorf("SAS: lifetime %v: need at least a minute", s.Lifetime))
	}
	return errors.Join(errs...)
}

// Login returns Credentials that make tokens. now is the wall clock; nil: that of the
// system.
func (s SAS) Login(username string, now func() time.Time) func(context.Context) (Login, error) {
	if now == nil {
		now = time.Now
	}
	return func(context.Context) (Login, error) {
		at := now()
		if at.Year() < plausibleYear {
			return Login{}, fmt.Errorf("the clock of this machine says %s, so it was never set; a SAS token can be made only when it is right (NTP, RTC)", at.UTC().Format(time.RFC3339))
		}
		token, expires, err := s.token(at)
		return Login{username, token, expires}, err
	}
}

func (s *SAS) token(at time.Time) (string, time.Time, error) {
	key, err := base64.StdEncoding.DecodeString(s.Key)
	if err != nil {
		return "", time.Time{}, errors.New("the SAS key is not base64")
	}
	expires := at.Add(s.Lifetime).Truncate(time.Second)
	resource := url.QueryEscape(s.Resource)
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s\n%d", resource, expires.Unix())
	token := fmt.Sprintf("%ssr=%s&sig=%s&se=%d", sasPrefix, resource, url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))), expires.Unix())
	if s.Policy != "" {
		token += "&skn=" + url.QueryEscape(s.Policy)
	}
	return token, expires, nil
}
