// Drives MQTT.js for the tests in mqttjs_test.go:
//
//	node mqttjs.mjs SCENARIO VERSION URL
//
// Exit status 0: the scenario went as it must. Otherwise stderr says what did not.

import mqtt from 'mqtt'
import assert from 'node:assert/strict'

const [scenario, version, url] = process.argv.slice(2)
const patience = 30_000 // ms for a whole scenario
const protocolVersion = Number(version)

setTimeout(() => {
	console.error(`${scenario} is not done after ${patience} ms`)
	process.exit(1)
}, patience).unref()

function connect(clientId, options = {}) {
	return mqtt.connectAsync(url, {
		clientId: `${clientId} ${scenario} ${version}`,
		protocolVersion,
		protocolId: protocolVersion === 3 ? 'MQIsdp' : 'MQTT',
		reconnectPeriod: 10,
		...options,
	})
}

// durable are the options of a session that outlives its connection.
const durable = { clean: false, properties: { sessionExpiryInterval: 1000 } }

// collect gathers what a client gets, as "topic payload qos", until there are n.
function collect(client) {
	const all = []
	let check = () => {}
	client.on('message', (topic, payload, packet) => {
		all.push(`${topic} ${payload} ${packet.qos}`)
		check()
	})
	return (n) => new Promise((resolve) => {
		check = () => { if (all.length >= n) resolve(all) }
		check()
	})
}

const topic = `${scenario}/${version}`

const scenarios = {
	async pubsub() {
		const sub = await connect('sub')
		const received = collect(sub)
		const want = []
		await sub.subscribeAsync(`${topic}/#`, { qos: 2 })
		const pub = await connect('pub')
		for (const qos of [0, 1, 2]) {
			for (let i = 0; i < 50; i++) {
				await pub.publishAsync(`${topic}/${qos}`, `${i}`, { qos })
				want.push(`${topic}/${qos} ${i} ${qos}`)
			}
		}
		assert.deepEqual(await received(want.length), want)
		await pub.endAsync()
		await sub.endAsync()
	},

	// Connections break while messages are under way; the library connects again by
	// itself and sends again what is not acknowledged.
	async reconnect() {
		const sub = await connect('sub', durable)
		const received = collect(sub)
		await sub.subscribeAsync(topic, { qos: 2 })
		const pub = await connect('pub', durable)
		const want = []
		const sent = []
		// Few, for what is sent again goes one by one, each when the one before is durable.
		for (let i = 0; i < 60; i++) {
			sent.push(pub.publishAsync(topic, `${i}`, { qos: 2 }))
			want.push(`${topic} ${i} 2`)
			if (i % 20 === 10) pub.stream.destroy()
			if (i % 20 === 19) await Promise.all(sent)
		}
		assert.deepEqual([...new Set(await received(want.length))].sort(), want.sort())
		await pub.endAsync()
		await sub.endAsync()
	},

	async offline() {
		const away = await connect('away', durable)
		await away.subscribeAsync(`${topic}/#`, { qos: 1 })
		await away.endAsync()
		const pub = await connect('pub')
		const want = []
		const sent = []
		for (let i = 0; i < 50; i++) {
			sent.push(pub.publishAsync(`${topic}/q`, `${i}`, { qos: 1 }))
			want.push(`${topic}/q ${i} 1`)
		}
		await Promise.all(sent)
		const back = mqtt.connect(url, { clientId: `away ${scenario} ${version}`, protocolVersion, protocolId: protocolVersion === 3 ? 'MQIsdp' : 'MQTT', ...durable })
		const received = collect(back) // before CONNACK: messages follow it at once
		const connack = await new Promise((resolve) => back.on('connect', resolve))
		if (protocolVersion > 3) assert.equal(connack.sessionPresent, true)
		assert.deepEqual(await received(want.length), want)
		await back.endAsync()
		await pub.endAsync()
	},

	async will() {
		const watch = await connect('watch')
		const received = collect(watch)
		await watch.subscribeAsync(`${topic}/will/#`, { qos: 1 })
		const will = (name) => ({ reconnectPeriod: 0, will: { topic: `${topic}/will/${name}`, payload: 'gone', qos: 1 } })
		const orderly = await connect('orderly', will('orderly'))
		await orderly.endAsync()
		const dying = await connect('dying', will('dying'))
		dying.stream.destroy()
		assert.deepEqual(await received(1), [`${topic}/will/dying gone 1`])
		await watch.endAsync()
	},
}

await scenarios[scenario]()
