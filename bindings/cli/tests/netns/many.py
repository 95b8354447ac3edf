# SPDX-License-Identifier: BSD-2-Clause
"""More than one application, and more than one client."""

from lab import Lab, check
from meter import Application, Service
from scenario import SERVICE_PORT, Network, scenario


@scenario(limit_s=30)
def many_applications(lab: Lab) -> None:
    """Two applications behind one mpclient, and a second mpclient, get their own replies.

      c                                                        s
      application 1 ─┬─ mpclient, port 3000 ─┬─ b1: socat ─┬─ mpserver ─ service
      application 2 ─┘                       │             │
      application 3 ─── mpclient, port 3001 ─┴─ b2: socat ─┘

    Each application numbers its datagrams from 0, so that nothing but the tunnel tells them apart.
    """
    net = Network(lab, ways=2)
    service = Service(net.server_host, SERVICE_PORT)
    net.socats()
    net.server()
    net.client(net.bridged_paths())
    net.client(net.bridged_paths(), "3001")
    ports = 3000, 3000, 3001
    applications = [Application(net.client_host, service, ("127.0.0.1", port)) for port in ports]
    for application in applications:
        application.wait_up(5)

    for application in applications:
        application.begin(rate=500)
    applications[0].enough.wait(3)
    for application in applications:
        application.finish()

    for application in applications:
        application.expect_clean()
        application.expect_all()
    check(len(service.senders) == 3, f"the service saw {len(service.senders)} senders")
