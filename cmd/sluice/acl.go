package main

import (
	"fmt"
	"os"

	"sluice/broker/auth"
	"sluice/broker/topic"
)

// aclCmd is `sluice acl`.
type aclCmd struct {
	Test aclTestCmd `cmd:"" help:"Say whether a client may use a topic, and which rule says so."`
}

// aclTestCmd is `sluice acl test`.
type aclTestCmd struct {
	Config string `short:"c" type:"path" placeholder:"FILE" xor:"where" required:"" help:"Ask the ACL file of this configuration."`
	ACL    string `name:"acl" type:"path" placeholder:"FILE" xor:"where" required:"" help:"Ask this ACL file."`
	User   string `placeholder:"NAME" help:"User name of the client. Without it, the client is anonymous."`
	Client string `placeholder:"ID" help:"Client id, for patterns with %%c."`
	Action string `arg:"" enum:"publish,receive,subscribe" help:"publish: may it send messages to TOPIC. receive: is it sent those of TOPIC. subscribe: may it subscribe to the filter TOPIC."`
	Topic  string `arg:"" help:"A topic name; with subscribe a topic filter."`
}

// Help explains what the flags do not.
func (*aclTestCmd) Help() string {
	return "Exit status: 0 if the client may, 1 if not, 2 if that cannot be said. The topics in a client's token (JWT) are not looked at."
}

// Run answers yes or no, and why.
func (a *aclTestCmd) Run(c *console) error {
	file := a.ACL
	if a.Config != "" {
		cfg, err := loadConfig(a.Config, nil, "")
		if err != nil {
			return err
		}
		file = cfg.Auth.ACLFile
	}
	sources := auth.Sources{Methods: []string{}}
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return wrongFiles{err}
		}
		sources.ACL = &auth.File{Name: file, Data: text}
	}
	rules, err := auth.New(&sources)
	if err != nil {
		return wrongFiles{err}
	}
	action, check := auth.Publish, topic.CheckName
	switch a.Action {
	case "receive":
		action = auth.Receive
	case "subscribe":
		action, check = auth.Subscribe, topic.CheckFilter
	}
	if err := check([]byte(a.Topic), 0); err != nil {
		return wrongFiles{fmt.Errorf("%q: %w", a.Topic, err)}
	}
	ok, why := rules.Permit(&auth.Identity{User: a.User}, a.Client).Explain(action, []byte(a.Topic))
	if !ok {
		fmt.Fprintf(c.out, "no: %s\n", why)
		return exitStatus(exitFailure)
	}
	_, err = fmt.Fprintf(c.out, "yes: %s\n", why)
	return err
}
