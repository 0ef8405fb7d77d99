"""Who answers by ARP for addresses of services: one elected node per service, as `policy.announce` lets them.

`election` decides, pure; `announcer` watches, takes leases and tells the planner; `greet` sends.
"""
