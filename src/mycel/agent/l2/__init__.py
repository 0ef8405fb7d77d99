"""Who answers by ARP for addresses of services: CiliumL2AnnouncementPolicies, and one elected node per service.

`policies` and `election` decide, both pure; `announcer` watches, takes leases and tells the planner; `greet` sends.
"""
